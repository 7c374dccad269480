//! What stood at a path, exactly enough to put it back.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xattr::FileExt;

use super::Host;
use crate::system::files::{self, Ownership};

/// Texts up to this size stand in the journal itself; larger and binary contents are copied beside it.
const INLINE_LIMIT: usize = 64 * 1024;

/// What stood at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "was", rename_all = "kebab-case")]
pub enum FileState {
    /// Nothing.
    Absent,
    /// A regular file.
    File {
        /// Its bytes.
        content: Content,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Permission bits.
        mode: u32,
        /// Modification time: seconds since 1970, and nanoseconds.
        modified: (i64, u32),
        /// Extended attributes, ACLs and labels among them: names, and values in hexadecimal.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        attributes: Vec<(String, String)>,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: PathBuf,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// A file's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// A text.
    Text(String),
    /// A copy in the run's backups.
    Copy {
        /// Its name there.
        name: String,
        /// SHA-256 in hexadecimal.
        sha256: String,
    },
}

impl FileState {
    /// What stands at `path` now. Large contents are copied to the run's backups, durably.
    ///
    /// # Errors
    /// When it cannot be read, or is neither a file nor a link.
    pub fn capture(path: &Path, host: &Host<'_>) -> Result<Self> {
        let metadata = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::Absent),
            other => other.with_context(|| format!("cannot look at {}", path.display()))?,
        };
        let Ownership { uid, gid, mode } = Ownership::of(&metadata);
        if metadata.is_symlink() {
            let target =
                fs::read_link(path).with_context(|| format!("cannot read the link {}", path.display()))?;
            return Ok(Self::Symlink { target, uid, gid });
        }
        if !metadata.is_file() {
            bail!("{} is neither a file nor a link: move it away first", path.display());
        }
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let content = Content::keep(path, bytes, host)?;
        // An mtime's nanoseconds are always below 10^9.
        let modified = (metadata.mtime(), metadata.mtime_nsec() as u32);
        let attributes =
            attributes(path).with_context(|| format!("cannot read the attributes of {}", path.display()))?;
        Ok(Self::File { content, uid, gid, mode, modified, attributes })
    }

    /// Puts back what stood at `path`, in one step. Where that is still there nothing is written: the step that is undone may
    /// have failed because nothing can be.
    ///
    /// # Errors
    /// When it cannot be written, or a copy in the backups is not what was put there.
    pub fn restore(&self, path: &Path, host: &Host<'_>) -> Result<()> {
        let context = || format!("cannot put back {}", path.display());
        if self.is_at(path, host)? {
            files::forget_temporary(path);
            return Ok(());
        }
        match self {
            Self::Absent => files::remove(path).with_context(context),
            Self::Symlink { target, uid, gid } => {
                files::replace_with_symlink(path, target).with_context(context)?;
                lchown(path, Some(*uid), Some(*gid)).with_context(context)
            }
            Self::File { content, modified, .. } => {
                self.replace(path, &content.load(host)?).with_context(context)?;
                set_modified(path, *modified).with_context(context)
            }
        }
    }

    /// Whether it is what stands at `path` now, to the time stamp.
    fn is_at(&self, path: &Path, host: &Host<'_>) -> Result<bool> {
        let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(false) };
        let now = Ownership::of(&metadata);
        Ok(match self {
            Self::Absent => false,
            Self::Symlink { target, uid, gid } => {
                metadata.is_symlink()
                    && (now.uid, now.gid) == (*uid, *gid)
                    && fs::read_link(path).is_ok_and(|there| there == *target)
            }
            Self::File { content, uid, gid, mode, modified, attributes: had } => {
                metadata.is_file()
                    && now == Ownership { uid: *uid, gid: *gid, mode: *mode }
                    && (metadata.mtime(), metadata.mtime_nsec() as u32) == *modified
                    && attributes(path).is_ok_and(|attributes| attributes == *had)
                    && fs::read(path).ok() == Some(content.load(host)?)
            }
        })
    }

    /// Writes another text to `path`, with owner, mode and attributes of what stood there; root:root 0644 where nothing did.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_instead(&self, path: &Path, text: &str) -> Result<()> {
        self.replace(path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The bytes of what stood there; none where nothing did.
    ///
    /// # Errors
    /// When a copy in the backups cannot be read.
    pub fn read(&self, host: &Host<'_>) -> Result<Vec<u8>> {
        match self {
            Self::File { content, .. } => content.load(host),
            Self::Absent | Self::Symlink { .. } => Ok(Vec::new()),
        }
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let Self::File { uid, gid, mode, attributes, .. } = self else {
            return files::replace(path, bytes, Ownership::root(0o644));
        };
        let ownership = Ownership { uid: *uid, gid: *gid, mode: *mode };
        files::replace_with(path, bytes, ownership, |file| {
            attributes.iter().try_for_each(|(name, value)| file.set_xattr(name, &unhex(value)?))
        })
    }
}

impl Content {
    fn keep(path: &Path, bytes: Vec<u8>, host: &Host<'_>) -> Result<Self> {
        if bytes.len() <= INLINE_LIMIT
            && let Ok(text) = std::str::from_utf8(&bytes)
        {
            return Ok(Self::Text(text.to_owned()));
        }
        let sha256 = hex(&Sha256::digest(&bytes));
        let name = format!("{}-{}", &hex(&Sha256::digest(path.as_os_str().as_bytes()))[..16], &sha256[..16]);
        let copy = host.backups.join(&name);
        files::replace(&copy, &bytes, Ownership { mode: 0o600, ..Ownership::root(0o600) })
            .with_context(|| format!("cannot keep a copy of {} as {}", path.display(), copy.display()))?;
        Ok(Self::Copy { name, sha256 })
    }

    fn load(&self, host: &Host<'_>) -> Result<Vec<u8>> {
        match self {
            Self::Text(text) => Ok(text.clone().into_bytes()),
            Self::Copy { name, sha256 } => {
                let copy = host.backups.join(name);
                let bytes =
                    fs::read(&copy).with_context(|| format!("cannot read the copy {}", copy.display()))?;
                if hex(&Sha256::digest(&bytes)) != *sha256 {
                    bail!("the copy {} is damaged: its SHA-256 is not {sha256}", copy.display());
                }
                Ok(bytes)
            }
        }
    }
}

fn set_modified(path: &Path, (seconds, nanoseconds): (i64, u32)) -> io::Result<()> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 { SystemTime::UNIX_EPOCH - whole } else { SystemTime::UNIX_EPOCH + whole };
    let file = File::open(path)?;
    file.set_modified(base + Duration::from_nanos(nanoseconds.into()))?;
    file.sync_all()
}

fn attributes(path: &Path) -> io::Result<Vec<(String, String)>> {
    let mut attributes = Vec::new();
    let names = match xattr::list(path) {
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(attributes),
        other => other?,
    };
    for name in names {
        let value = xattr::get(path, &name)?.unwrap_or_default();
        attributes.push((name.to_string_lossy().into_owned(), hex(&value)));
    }
    attributes.sort();
    Ok(attributes)
}

fn unhex(text: &str) -> io::Result<Vec<u8>> {
    let byte = |at| text.get(at..at + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    (0..text.len()).step_by(2).map(|at| byte(at).ok_or_else(|| ErrorKind::InvalidData.into())).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::test_host::host;
    use super::*;

    #[test]
    fn each_kind_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        fs::create_dir(&host.backups).unwrap();
        let path = dir.path().join("file");
        let contents: [&[u8]; 3] = [b"text\n", b"\xff\x00binary", &[b'x'; INLINE_LIMIT + 1]];
        for content in contents {
            fs::write(&path, content).unwrap();
            set_modified(&path, (1_000_000_000, 123_456_789)).unwrap();
            let before = FileState::capture(&path, &host).unwrap();
            fs::remove_file(&path).unwrap();
            FileState::Absent.restore(&path, &host).unwrap();
            for _ in 0..2 {
                before.restore(&path, &host).unwrap();
                assert_eq!(fs::read(&path).unwrap(), content);
                assert_eq!(FileState::capture(&path, &host).unwrap(), before);
            }
        }
        FileState::Absent.restore(&path, &host).unwrap();
        std::os::unix::fs::symlink("/nix/nowhere", &path).unwrap();
        let link = FileState::capture(&path, &host).unwrap();
        fs::remove_file(&path).unwrap();
        link.restore(&path, &host).unwrap();
        assert_eq!(FileState::capture(&path, &host).unwrap(), link);
    }

    #[test]
    fn a_damaged_copy_is_not_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        fs::create_dir(&host.backups).unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"\xff\xfe").unwrap();
        let before = FileState::capture(&path, &host).unwrap();
        let copy = fs::read_dir(&host.backups).unwrap().next().unwrap().unwrap().path();
        fs::write(copy, b"other").unwrap();
        let error = format!("{:#}", before.restore(&path, &host).unwrap_err());
        assert!(error.contains("damaged"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"\xff\xfe");
    }

    #[test]
    fn a_directory_is_not_a_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(FileState::capture(dir.path(), &host(dir.path())).is_err());
    }
}
