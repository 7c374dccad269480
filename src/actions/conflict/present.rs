//! What is at a path, and what a step wrote there, in a form that can be compared.

use std::fs::{self, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::libc;

use super::super::file_state::FileState;
use super::super::{Host, show};
use super::Version;
use crate::types::Sha256Digest;

/// Longest text that is shown or put into a document, in bytes.
const SHOWN: usize = 64 * 1024;

/// Longest file that is read, in bytes: far longer than what any step writes, a program, and short enough for any machine's memory.
const READ: u64 = 64 * 1024 * 1024;

/// What is at a path. Owner, mode and times are not compared: content is what somebody could lose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Present {
    /// Nothing.
    Absent,
    /// A regular file with these bytes.
    File(Vec<u8>),
    /// A regular file that is too long to be one of ours, and is not read.
    Long {
        /// Its length in bytes.
        bytes: u64,
        /// What tells it from others: device and inode.
        inode: (u64, u64),
        /// When it was last written to: seconds since 1970, and nanoseconds.
        modified: (i64, i64),
    },
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
        let Some(kind) = Self::kind_at(path)? else { return Ok(Self::Absent) };
        Ok(if kind.is_file() {
            Self::of_file(path).with_context(context)?
        } else if kind.is_symlink() {
            Self::Link(fs::read_link(path).with_context(context)?)
        } else if kind.is_dir() {
            Self::Directory
        } else {
            Self::Special
        })
    }

    /// What kind of thing is at `path` now, without a look into it; none when there is nothing.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn kind_at(path: &Path) -> Result<Option<FileType>> {
        match fs::symlink_metadata(path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            other => {
                let metadata = other.with_context(|| format!("cannot look at {}", show(path)))?;
                Ok(Some(metadata.file_type()))
            }
        }
    }

    /// What somebody may have put there since it was seen to be a file, below `/nix`, is neither followed nor waited for.
    fn of_file(path: &Path) -> io::Result<Self> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(Self::Special);
        }
        let mut bytes = Vec::new();
        // It may grow while it is read.
        if metadata.len() > READ || file.take(READ + 1).read_to_end(&mut bytes)? as u64 > READ {
            let inode = (metadata.dev(), metadata.ino());
            let modified = (metadata.mtime(), metadata.mtime_nsec());
            return Ok(Self::Long { bytes: metadata.len(), inode, modified });
        }
        Ok(Self::File(bytes))
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

    /// SHA-256 of it, in hexadecimal; of a file that is too long, of what tells it from others.
    pub fn digest(&self) -> String {
        match self {
            Self::Absent => sha256(b"absent"),
            Self::File(bytes) => sha256(bytes),
            Self::Long { .. } => sha256(format!("{self:?}").as_bytes()),
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
            Self::Long { bytes, .. } => Version::of(format!("a file of {bytes} bytes")),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::{Duration, UNIX_EPOCH};

    /// Neither the length that somebody gave a file, nor what he put there since, makes root's tool wait or run out of memory.
    #[test]
    fn what_cannot_be_ours_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::create(&path).unwrap();
        file.set_len(READ).unwrap();
        assert!(matches!(Present::at(&path).unwrap(), Present::File(bytes) if bytes.len() as u64 == READ));
        file.set_len(1 << 43).unwrap();
        file.set_modified(UNIX_EPOCH).unwrap();
        let long = Present::at(&path).unwrap();
        assert_eq!(long.version().what, "a file of 8796093022208 bytes");
        assert_eq!(Present::at(&path).unwrap().digest(), long.digest());
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        assert_ne!(Present::at(&path).unwrap().digest(), long.digest());

        // As when it was exchanged between the look and the opening.
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(Present::of_file(&fifo).unwrap(), Present::Special);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        assert!(Present::of_file(&link).is_err());
    }
}
