//! The test ground itself, on the root-owned Nix that every scenario starts from.

mod machines;
mod oracle;
mod root_owned;
mod virtual_machine;
