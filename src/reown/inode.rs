//! One inode at a time, by a descriptor that pins it: what is checked is what is changed.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Statx, StatxFlags, Uid, XattrFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::record::Special;

/// Set-uid and set-gid: what chown(2) takes from a file even when root calls it.
pub const SET_IDS: u32 = 0o6000;
const CAPABILITIES: &str = "security.capability";
/// The last path component that `openat2` takes in one call, well below PATH_MAX (4096).
const LONGEST_PATH: usize = 3800;

// NOATIME: a walk that reads directories must not change their times.
const READ_DIR: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NOATIME);

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
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW, wanted).map(Self::from)
    }

    /// Of what `name` in `dir` is, a link not followed.
    pub fn at(dir: impl AsFd, name: &CStr) -> rustix::io::Result<Self> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, wanted)
            .map(Self::from)
    }

    /// The file type.
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
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

impl From<Statx> for Stat {
    fn from(stat: Statx) -> Self {
        Self {
            id: ((u64::from(stat.stx_dev_major) << 32) | u64::from(stat.stx_dev_minor), stat.stx_ino),
            mount: stat.stx_mnt_id,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            mode: u32::from(stat.stx_mode),
            links: stat.stx_nlink,
            changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        }
    }
}

/// Pins what `name` in `dir` is, without opening it: no FIFO blocks, no device acts, no link is followed.
pub fn pin(dir: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Opens the directory `name` in `dir` for reading. `XDEV` when something is mounted there, `NOTDIR` or `LOOP` when it
/// is no directory.
pub fn open_dir(dir: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    open_beneath(dir.as_fd(), name, READ_DIR)
}

/// Opens the root of a tree. The path to it is the caller's, only its last component must be no link.
pub fn open_root(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, READ_DIR, Mode::empty())
}

/// Opens the directory that `dir` lies in, for reading. The caller checks that it is the one it expects.
pub fn open_parent(dir: impl AsFd) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, c"..", READ_DIR, Mode::empty())
}

/// Pins the inode at a relative path of any length, with no symbolic link, mount or `..` on the way.
pub fn pin_path(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut rest = path;
    let mut at: Option<OwnedFd> = None;
    while rest.len() > LONGEST_PATH {
        let cut = rest[..LONGEST_PATH].iter().rposition(|&byte| byte == b'/').ok_or(Errno::NAMETOOLONG)?;
        let base = at.as_ref().map_or(root, OwnedFd::as_fd);
        at = Some(open_beneath(base, &rest[..cut], flags | OFlags::DIRECTORY)?);
        rest = &rest[cut + 1..];
    }
    let rest = if rest.is_empty() { b"." } else { rest };
    open_beneath(at.as_ref().map_or(root, OwnedFd::as_fd), rest, flags)
}

/// Gives a pinned inode to `uid`:`gid`.
pub fn change_owner(fd: impl AsFd, (uid, gid): (u32, u32)) -> rustix::io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)
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
    let capabilities = capabilities(fd)?;
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
    // It is a regular file, and stays one, so it may be opened; that costs half of going through /proc.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOATIME;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    match rustix::fs::fgetxattr(file, CAPABILITIES, &mut [0_u8; 64][..]) {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Puts back what [`special`] found, if the content is still the same; says whether it did.
pub fn give_special(fd: BorrowedFd<'_>, mode: u32, special: &Special) -> io::Result<bool> {
    if digest(fd)? != special.digest {
        return Ok(false);
    }
    rustix::fs::chmod(by_descriptor(fd), Mode::from_raw_mode(mode))?;
    if !special.capabilities.is_empty() {
        rustix::fs::setxattr(by_descriptor(fd), CAPABILITIES, &special.capabilities, XattrFlags::empty())?;
    }
    Ok(true)
}

fn capabilities(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut value = [0_u8; 64]; // the kernel's longest form has 24 bytes (capabilities(7), VFS_CAP_REVISION_3)
    match rustix::fs::getxattr(by_descriptor(fd), CAPABILITIES, &mut value[..]) {
        Ok(length) => Ok(value[..length].to_vec()),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// SHA-256 of a pinned regular file's content. The caller has seen that it is one: opening it cannot block.
fn digest(fd: BorrowedFd<'_>) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(by_descriptor(fd))?, &mut hasher)?;
    Ok(hasher.finalize().into())
}

/// The kernel's own link to a pinned inode: for calls that take no descriptor opened with `O_PATH`. It leads to that
/// very inode, whatever has its name by now.
fn by_descriptor(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn open_beneath(
    dir: BorrowedFd<'_>,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    // AGAIN: a rename anywhere on the machine raced with the look-up (openat2(2)); a bound, as it could go on for ever.
    for _ in 0..64 {
        match rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}
