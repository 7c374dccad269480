//! What the kernel is asked for besides: privacy from processes of the same uid, and to become the parent of what loses its own. macOS has
//! neither, and the gate has no privileges there that anybody could want: it is the store's owner, and nothing else.

use crate::Result;

#[cfg(target_os = "linux")]
mod system {
    use crate::{Result, while_doing};
    use nix::sys::prctl;

    pub fn from_own_user(on: bool) -> Result<()> {
        prctl::set_dumpable(!on).map_err(while_doing("protect the gate"))
    }

    pub fn adopt() -> Result<()> {
        prctl::set_child_subreaper(true).map_err(while_doing("become the parent of what loses its own"))
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use crate::Result;

    pub fn from_own_user(_: bool) -> Result<()> {
        Ok(())
    }

    pub fn adopt() -> Result<()> {
        Ok(())
    }
}

/// May processes of the same user not look into this one?
///
/// # Errors
/// When the kernel refuses.
pub fn from_own_user(on: bool) -> Result<()> {
    system::from_own_user(on)
}

/// What loses its parent below this process becomes its child (prctl(2), `PR_SET_CHILD_SUBREAPER`).
///
/// # Errors
/// When the kernel refuses.
pub fn adopt() -> Result<()> {
    system::adopt()
}
