//! Official binary archives of Nix, `nix-VERSION-SYSTEM.tar.xz`: which one is wanted, and how one is unpacked.
//!
//! An archive is taken for hostile until its digest has matched, and is unpacked by a child that has no rights but those of
//! the store's owner, even then.

mod ahead;
mod contents;
mod place;
mod releases;
mod unpack;

pub use contents::Contents;
pub use releases::{Release, release_for};
pub use unpack::{UNPACK_COMMAND, child_main};

use serde::{Deserialize, Serialize};

use crate::types::Sha256Digest;

/// An archive that somebody chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// An absolute path, or a URL that begins with `https://` or `http://`.
    pub from: String,
    /// What its bytes must be.
    pub sha256: Sha256Digest,
}

impl Source {
    /// Whether it has to be fetched over the network.
    pub fn is_url(from: &str) -> bool {
        from.starts_with("https://") || from.starts_with("http://")
    }
}
