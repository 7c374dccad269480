//! What is at a path, and what a step wrote there, in a form that can be compared.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::super::file_state::FileState;
use super::super::{Host, show};
use super::Version;
use crate::types::Sha256Digest;

/// Longest text that is shown or put into a document, in bytes.
const SHOWN: usize = 64 * 1024;

/// What is at a path. Owner, mode and times are not compared: content is what somebody could lose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Present {
    /// Nothing.
    Absent,
    /// A regular file with these bytes.
    File(Vec<u8>),
    /// A symbolic link.
    Link(PathBuf),
    /// A directory.
    Directory,
    /// A FIFO, a socket or a device, which is never opened.
    Special,
}

impl Present {
    /// What is at `path` now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn at(path: &Path) -> Result<Self> {
        let context = || format!("cannot look at {}", show(path));
        let kind = match fs::symlink_metadata(path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Self::Absent);
            }
            other => other.with_context(context)?.file_type(),
        };
        Ok(if kind.is_file() {
            Self::File(fs::read(path).with_context(context)?)
        } else if kind.is_symlink() {
            Self::Link(fs::read_link(path).with_context(context)?)
        } else if kind.is_dir() {
            Self::Directory
        } else {
            Self::Special
        })
    }

    /// What stood there when it was captured.
    ///
    /// # Errors
    /// When a copy in the backups cannot be read, or is damaged.
    pub fn of(state: &FileState, host: &Host<'_>) -> Result<Self> {
        Ok(match state {
            FileState::Absent => Self::Absent,
            FileState::File { .. } => Self::File(state.read(host)?),
            FileState::Symlink { target, .. } => Self::Link(target.clone()),
        })
    }

    /// SHA-256 of it, in hexadecimal.
    pub fn digest(&self) -> String {
        match self {
            Self::Absent => sha256(b"absent"),
            Self::File(bytes) => sha256(bytes),
            Self::Link(target) => sha256(&[b"link to ", target.as_os_str().as_bytes()].concat()),
            Self::Directory => sha256(b"directory"),
            Self::Special => sha256(b"special"),
        }
    }

    /// It, for people.
    pub fn version(&self) -> Version {
        match self {
            Self::Absent => Version::of("nothing"),
            Self::File(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) if bytes.len() <= SHOWN => Version {
                    what: format!("a file of {} lines", text.lines().count()),
                    text: Some(text.to_owned()),
                },
                _ => Version::of(format!("a file of {} bytes, SHA-256 {}", bytes.len(), sha256(bytes))),
            },
            Self::Link(target) => Version::of(format!("a link to {}", target.display())),
            Self::Directory => Version::of("a directory"),
            Self::Special => Version::of("neither a file nor a link nor a directory"),
        }
    }
}

/// What a step wrote to a path.
#[derive(Clone, Debug)]
pub enum Wrote {
    /// A file with this text.
    Text(String),
    /// A file whose bytes have this SHA-256, in hexadecimal.
    Digest(String),
    /// A link to this.
    Link(PathBuf),
    /// Nothing: it took away what was there.
    Nothing,
}

impl Wrote {
    /// Whether that is what is there.
    pub fn is(&self, now: &Present) -> bool {
        match (self, now) {
            (Self::Text(text), Present::File(bytes)) => text.as_bytes() == bytes,
            (Self::Digest(digest), Present::File(_)) => *digest == now.digest(),
            (Self::Link(target), Present::Link(now)) => target == now,
            (Self::Nothing, Present::Absent) => true,
            _ => false,
        }
    }

    /// It, for people.
    pub fn version(&self) -> Version {
        match self {
            Self::Text(text) => Present::File(text.clone().into_bytes()).version(),
            Self::Digest(digest) => Version::of(format!("a program, SHA-256 {digest}")),
            Self::Link(target) => Present::Link(target.clone()).version(),
            Self::Nothing => Present::Absent.version(),
        }
    }
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256Digest::of_bytes(bytes).to_string()
}
