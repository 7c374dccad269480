//! What is tested on the machines.

/// Makes of every named function that takes a layout one test a layout, so that they run side by side and the name
/// tells which one failed.
macro_rules! on_both_layouts {
    ($($scenario:ident),+ $(,)?) => {
        mod debian {
            $(#[test] fn $scenario() -> anyhow::Result<()> {
                super::$scenario(crate::harness::layout::Layout::Debian)
            })+
        }
        mod official {
            $(#[test] fn $scenario() -> anyhow::Result<()> {
                super::$scenario(crate::harness::layout::Layout::Official)
            })+
        }
    };
}

mod behaviour;
mod ground;
mod product;
