//! One inode at a time, by a descriptor that pins it: what is checked is what is changed.

use std::ffi::CStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, FileType, Gid, Mode, RawMode, Uid};
use sha2::{Digest, Sha256};

use super::record::Special;

#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(not(target_os = "linux"), test))]
#[cfg_attr(target_os = "linux", allow(dead_code))]
mod macos;

#[cfg(target_os = "linux")]
use linux as system;
#[cfg(not(target_os = "linux"))]
use macos as system;

pub use system::{MODE_TELLS_ALL, change_owner, open_dir, pin, pin_path, stamping_clock};

/// Set-uid and set-gid: what chown(2) takes from a file even when root calls it.
pub const SET_IDS: u32 = 0o6000;
/// The largest file whose content is compared. Anybody's file can be sparse and of terabytes, and reading those takes hours.
const LARGEST: u64 = 1 << 30;
/// How much is read between two looks at whether to stop.
const CHUNK: usize = 256 << 10;

/// What the walk needs to know about an inode.
#[derive(Clone, Copy, Debug)]
pub struct Stat {
    /// The file system and the number in it.
    pub id: Id,
    /// The mount that the inode was reached through.
    pub mount: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Type and permission bits.
    pub mode: u32,
    /// How many names the inode has.
    pub links: u32,
    /// How many bytes a file has.
    pub size: u64,
    /// When its owner, mode, names or content last changed: seconds and nanoseconds.
    pub changed: (i64, u32),
}

/// The file system's device number and the inode's number.
pub type Id = (u64, u64);

impl Stat {
    /// Of an open inode.
    pub fn of(fd: impl AsFd) -> rustix::io::Result<Self> {
        system::stat_of(fd)
    }

    /// Of what `name` in `dir` is, a link not followed.
    pub fn at(dir: impl AsFd, name: &CStr) -> rustix::io::Result<Self> {
        system::stat_at(dir, name)
    }

    /// The file type.
    pub fn kind(&self) -> FileType {
        // A mode's bits are the low 16 on every system.
        FileType::from_raw_mode(self.mode as RawMode)
    }

    /// Whether the inode was changed at `moment` or later. A whole second may be a cut-off one: ext4 with small inodes
    /// keeps no more.
    pub fn is_changed_since(&self, moment: (i64, u32)) -> bool {
        if self.changed.1 == 0 { self.changed.0 >= moment.0 } else { self.changed >= moment }
    }

    /// Whether a change of owner could take more than the owner: capabilities mean nothing but on executables.
    pub fn may_be_special(&self) -> bool {
        self.kind() == FileType::RegularFile && self.mode & (SET_IDS | 0o111) != 0
    }

    /// Permission bits, with set-uid, set-gid and sticky.
    pub fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }
}

/// Opens the root of a tree. The path to it is the caller's, only its last component must be no link.
pub fn open_root(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, system::READ_DIR, Mode::empty())
}

/// Opens the directory that `dir` lies in, for reading. The caller checks that it is the one it expects.
pub fn open_parent(dir: impl AsFd) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, c"..", system::READ_DIR, Mode::empty())
}

/// Gives what `name` in `dir` is to `uid`:`gid`, a link itself. Only where nobody else can put something else there.
pub fn change_owner_at(dir: impl AsFd, name: &CStr, (uid, gid): (u32, u32)) -> rustix::io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
}

/// What a change of owner would take from a pinned inode besides its owner; `None` for nearly all. A file above [`LARGEST`] is
/// recorded like others, but never gets it back.
pub fn special(fd: BorrowedFd<'_>, stat: &Stat, cancel: &AtomicBool) -> io::Result<Option<Special>> {
    if !stat.may_be_special() {
        return Ok(None);
    }
    let capabilities = system::capabilities(fd)?;
    if stat.mode & SET_IDS == 0 && capabilities.is_empty() {
        return Ok(None);
    }
    let digest = if stat.size > LARGEST { None } else { digest(fd, cancel)? };
    Ok(Some(Special { digest: digest.unwrap_or_default(), capabilities, size: Some(stat.size) }))
}

/// Whether [`special`] finds something, by a name that nobody can change.
pub fn is_special_at(dir: impl AsFd, name: &CStr, stat: &Stat) -> io::Result<bool> {
    if !stat.may_be_special() || stat.mode & SET_IDS != 0 {
        return Ok(stat.may_be_special());
    }
    system::has_capabilities_at(dir, name)
}

/// Puts back what [`special`] found, if the content is still the same; says whether it did.
pub fn give_special(
    fd: BorrowedFd<'_>,
    stat: &Stat,
    mode: u32,
    special: &Special,
    cancel: &AtomicBool,
) -> io::Result<bool> {
    let is_other = special.size.is_some_and(|size| size != stat.size);
    if is_other || stat.size > LARGEST || digest(fd, cancel)? != Some(special.digest) {
        return Ok(false);
    }
    system::change_mode(fd, mode)?;
    if !special.capabilities.is_empty() {
        system::give_capabilities(fd, &special.capabilities)?;
    }
    Ok(true)
}

/// An error when the caller wants to stop.
pub fn check_cancel(cancel: &AtomicBool) -> io::Result<()> {
    match cancel.load(Ordering::Relaxed) {
        true => Err(io::Error::from(io::ErrorKind::Interrupted)),
        false => Ok(()),
    }
}

/// SHA-256 of a pinned regular file's content; `None` when it has grown above [`LARGEST`]. The caller has seen that it is such a file: opening
/// it cannot block.
fn digest(fd: BorrowedFd<'_>, cancel: &AtomicBool) -> io::Result<Option<[u8; 32]>> {
    let (mut hasher, mut chunk, mut total) = (Sha256::new(), vec![0; CHUNK], 0);
    let mut reader = system::reader(fd)?;
    loop {
        check_cancel(cancel)?;
        match reader.read(&mut chunk)? {
            0 => return Ok(Some(hasher.finalize().into())),
            read => {
                total += read as u64;
                hasher.update(&chunk[..read]);
            }
        }
        if total > LARGEST {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_a_file_stops_when_asked_to() {
        let file = tempfile::tempfile().unwrap();
        let stopped = digest(file.as_fd(), &AtomicBool::new(true));
        assert_eq!(stopped.unwrap_err().kind(), io::ErrorKind::Interrupted);
        let empty: [u8; 32] = Sha256::digest(b"").into();
        assert_eq!(digest(file.as_fd(), &AtomicBool::new(false)).unwrap(), Some(empty));
    }
}
