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

use super::{Host, show};
use crate::system::access_list::ACCESS_LIST;
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
                replace(path, &content.load(host)?, self.access()).with_context(context)?;
                set_modified(path, *modified).with_context(context)
            }
        }
    }

    /// As [`Self::restore`], where a step wrote a file over it: of owner, group and permissions only what is still as the step left it
    /// goes back. The rest is somebody else's, stays, and is told. `ours` is what the step gave the file; without it, what the file had.
    ///
    /// # Errors
    /// As [`Self::restore`], and when what is there now cannot be looked at.
    pub fn restore_over(&self, path: &Path, ours: Option<Ownership>, host: &Host<'_>) -> Result<()> {
        let now = Access::at(path).with_context(|| format!("cannot look at {}", path.display()))?;
        let (Some(was), Some(now)) = (self.access(), now) else { return self.restore(path, host) };
        let after = now.given_back(&was, ours);
        if after != was {
            let list = |access: &Access| if access.list().is_some() { " with an access list" } else { "" };
            let words = |access: &Access| {
                let Ownership { uid, gid, mode } = access.ownership;
                format!("{uid}:{gid} {mode:04o}{}", list(access))
            };
            host.observer.note(&format!(
                "somebody changed owner, mode or attributes of {} since; that stays: {} (it was {})",
                show(path),
                words(&after),
                words(&was)
            ));
        }
        self.with(after).restore(path, host)
    }

    /// What stood there may be used by whom; none where no file did.
    fn access(&self) -> Option<Access> {
        let Self::File { uid, gid, mode, attributes, .. } = self else { return None };
        let ownership = Ownership { uid: *uid, gid: *gid, mode: *mode };
        Some(Access { ownership, attributes: attributes.clone() })
    }

    /// The same file for other people.
    fn with(&self, access: Access) -> Self {
        let Self::File { content, modified, .. } = self else { return self.clone() };
        let Access { ownership: Ownership { uid, gid, mode }, attributes } = access;
        Self::File { content: content.clone(), modified: *modified, uid, gid, mode, attributes }
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

    /// Writes another text to `path`. Owner, mode and attributes are those of the file that is there now: somebody may have made it
    /// secret. Where there is none, they are those of what stood there, or root:root 0644.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_instead(&self, path: &Path, text: &str) -> Result<()> {
        let write = || replace(path, text.as_bytes(), Access::at(path)?.or_else(|| self.access()));
        write().with_context(|| format!("cannot write {}", path.display()))
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
}

/// Who may do what with a file, and what else stands beside its bytes and time stamp.
#[derive(Clone, PartialEq, Eq)]
struct Access {
    ownership: Ownership,
    attributes: Vec<(String, String)>,
}

impl Access {
    /// Of the file that is at `path` now; none when there is no regular file.
    fn at(path: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Ok(metadata) if !metadata.is_file() => Ok(None),
            other => Ok(Some(Self { ownership: Ownership::of(&other?), attributes: attributes(path)? })),
        }
    }

    fn list(&self) -> Option<&(String, String)> {
        self.attributes.iter().find(|(name, _)| name == ACCESS_LIST)
    }

    /// What it becomes so that nobody else's change is lost. A step that gave the file nothing of its own left it as it `was`: whatever
    /// is otherwise now, somebody else did.
    fn given_back(self, was: &Self, ours: Option<Ownership>) -> Self {
        let Some(ours) = ours else { return self };
        let back = |now, ours, was| if now == ours { was } else { now };
        let (now, then) = (self.ownership, was.ownership);
        // The group's bits of a mode mean something else where there is a list: both stay or both go.
        let permissions = if self.list().is_none() && now.mode == ours.mode { was } else { &self };
        let others = was.attributes.iter().filter(|(name, _)| name != ACCESS_LIST);
        let mut attributes: Vec<_> = others.chain(permissions.list()).cloned().collect();
        attributes.sort();
        let ownership = Ownership {
            uid: back(now.uid, ours.uid, then.uid),
            gid: back(now.gid, ours.gid, then.gid),
            mode: permissions.ownership.mode,
        };
        Self { ownership, attributes }
    }
}

fn replace(path: &Path, bytes: &[u8], access: Option<Access>) -> io::Result<()> {
    let Some(Access { ownership, attributes }) = access else {
        return files::replace(path, bytes, Ownership::root(0o644));
    };
    files::replace_with(path, bytes, ownership, |file| {
        attributes.iter().try_for_each(|(name, value)| file.set_xattr(name, &unhex(value)?))
    })
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
    #[cfg(target_os = "linux")]
    use std::os::unix::fs::PermissionsExt;

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

    /// What `setfacl -m u:7:r` makes of a file, or with `-d` of a directory, with the mode 0640.
    #[cfg(target_os = "linux")]
    const LIST: &str =
        "0200000001000600ffffffff020004000700000004000400ffffffff10000400ffffffff20000000ffffffff";

    #[cfg(target_os = "linux")]
    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_comes_back_has_no_list_of_its_directory() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (host, path) = (host(dir.path()), dir.path().join("file"));
        for listed in [false, true] {
            fs::write(&path, "a").unwrap();
            set_mode(&path, 0o640);
            if listed {
                xattr::set(&path, ACCESS_LIST, &unhex(LIST).unwrap()).unwrap();
            }
            let before = FileState::capture(&path, &host).unwrap();
            xattr::set(dir.path(), "system.posix_acl_default", &unhex(&LIST.replace("07", "08")).unwrap())
                .unwrap();
            before.write_instead(&path, "b").unwrap();
            assert_eq!(xattr::get(&path, ACCESS_LIST).unwrap().is_some(), listed);
            fs::remove_file(&path).unwrap();
            before.restore(&path, &host).unwrap();
            assert_eq!(FileState::capture(&path, &host).unwrap(), before);
            fs::remove_file(&path).unwrap();
            xattr::remove(dir.path(), "system.posix_acl_default").unwrap();
        }
    }

    /// What a file had, what a step gave it, what somebody made of that, and what comes back; a mode, and whether there is a list.
    #[test]
    #[cfg(target_os = "linux")]
    fn only_what_a_step_changed_goes_back() {
        let rows: [(u32, Option<u32>, u32, bool, u32); 6] = [
            (0o600, Some(0o644), 0o644, false, 0o600),
            (0o600, Some(0o644), 0o604, false, 0o604),
            (0o600, Some(0o644), 0o644, true, 0o640),
            (0o644, None, 0o644, false, 0o644),
            (0o644, None, 0o640, false, 0o640),
            (0o644, None, 0o640, true, 0o640),
        ];
        for (was, ours, now, listed, after) in rows {
            let dir = tempfile::tempdir_in("/var/tmp").unwrap();
            let (host, path) = (host(dir.path()), dir.path().join("file"));
            fs::write(&path, "a").unwrap();
            set_mode(&path, was);
            xattr::set(&path, "user.note", b"kept").unwrap();
            set_modified(&path, (1_000_000_000, 0)).unwrap();
            let before = FileState::capture(&path, &host).unwrap();
            let ours = ours.map(|mode| Ownership { mode, ..Ownership::of(&fs::metadata(&path).unwrap()) });
            fs::write(&path, "ours").unwrap();
            set_mode(&path, now);
            if listed {
                xattr::set(&path, ACCESS_LIST, &unhex(LIST).unwrap()).unwrap();
            }
            for _ in 0..2 {
                before.restore_over(&path, ours, &host).unwrap();
                let metadata = fs::metadata(&path).unwrap();
                assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (after, 1_000_000_000));
                assert_eq!(xattr::get(&path, ACCESS_LIST).unwrap().is_some(), listed);
                assert_eq!(xattr::get(&path, "user.note").unwrap().unwrap(), b"kept");
                assert_eq!(fs::read(&path).unwrap(), b"a");
            }
        }
    }

    #[test]
    fn a_directory_is_not_a_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(FileState::capture(dir.path(), &host(dir.path())).is_err());
    }
}
