//! What `nix-daemon-gate`, `nix-root-scan` and `nix-build-broker` share: failures in words, who is on the other end of a connection, what a store
//! path's name may be, and how a fuzz target's corpus is run by a test.

pub mod corpus;
pub mod failure;
#[cfg(target_os = "macos")]
pub mod launchd;
pub mod peer;
pub mod store_name;

pub use failure::{Failure, Result, while_doing};
