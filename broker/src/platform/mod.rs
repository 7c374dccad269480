//! What differs between the systems. Both modules have the same functions.
//!
//! | | macOS | Linux |
//! |---|---|---|
//! | a build sees | the machine, as any user does | its inputs, its directory, a bare `/dev`, `/proc` without other users' processes |
//! | inputs are read-only | by the sandbox profile, and by the sticky bit of the store | by read-only bind mounts |
//! | outputs are made | in the store's directory, which the builds' group may write | in a directory that looks like the store |
//! | network | by the profile | an empty network namespace |

use std::os::fd::OwnedFd;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(any(target_os = "macos", test))]
mod profile;

#[cfg(target_os = "linux")]
pub use linux::{build_dir, clear_flags, command, enter, is_alive, no_new_privileges, prepare, rename_new};
#[cfg(target_os = "macos")]
pub use macos::{build_dir, clear_flags, command, enter, is_alive, no_new_privileges, prepare, rename_new};

/// Directories of one build.
#[derive(Debug)]
pub struct Dirs {
    /// Has `build`.
    pub parent: OwnedFd,
    /// The build's own directory.
    pub build: OwnedFd,
    /// Where it makes its outputs.
    pub made: OwnedFd,
}
