//! macOS: one root directory for all, and no look-ups from another.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::AT_FDCWD;

/// The root directory.
pub fn root_of_init(_: &Path) -> nix::Result<OwnedFd> {
    super::open_path(AT_FDCWD, "/")
}

/// The directory at this absolute path; a symlink in the last component is not followed.
pub fn find(root: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    super::open_path(root, path)
}
