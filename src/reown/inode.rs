//! One inode at a time, by a descriptor that pins it: what is checked is what is changed.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

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

/// What a change of owner would take from a pinned inode besides its owner; `None` for nearly all.
pub fn special(fd: BorrowedFd<'_>, stat: &Stat) -> io::Result<Option<Special>> {
    if !stat.may_be_special() {
        return Ok(None);
    }
    let capabilities = system::capabilities(fd)?;
    if stat.mode & SET_IDS == 0 && capabilities.is_empty() {
        return Ok(None);
    }
    Ok(Some(Special { digest: digest(fd)?, capabilities }))
}

/// Whether [`special`] finds something, by a name that nobody can change.
pub fn is_special_at(dir: impl AsFd, name: &CStr, stat: &Stat) -> io::Result<bool> {
    if !stat.may_be_special() || stat.mode & SET_IDS != 0 {
        return Ok(stat.may_be_special());
    }
    system::has_capabilities_at(dir, name)
}

/// Puts back what [`special`] found, if the content is still the same; says whether it did.
pub fn give_special(fd: BorrowedFd<'_>, mode: u32, special: &Special) -> io::Result<bool> {
    if digest(fd)? != special.digest {
        return Ok(false);
    }
    system::change_mode(fd, mode)?;
    if !special.capabilities.is_empty() {
        system::give_capabilities(fd, &special.capabilities)?;
    }
    Ok(true)
}

/// SHA-256 of a pinned regular file's content. The caller has seen that it is one: opening it cannot block.
fn digest(fd: BorrowedFd<'_>) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    io::copy(&mut system::reader(fd)?, &mut hasher)?;
    Ok(hasher.finalize().into())
}
