//! How this program ends.

use std::process::ExitCode;

/// The exit status, as documented in `--help`. No number stands both for "untouched" and for "half done".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// Failed, and undone; or failed before anything was changed.
    Failed = 1,
    /// The command line, the configuration or the caller's rights are not right.
    Usage = 2,
    /// A finding blocks it; nothing was changed.
    Blocked = 3,
    /// Failed, and not fully undone.
    Stuck = 4,
    /// With `--exit-code`: something was changed, or with `--dry-run` would be.
    Changes = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
