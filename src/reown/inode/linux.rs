//! Linux: `O_PATH`, openat2(2) and statx(2).

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, ResolveFlags, Statx, StatxFlags, Uid, XattrFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::Stat;

/// An access control list that lets others write shows in the group's permission bits (acl(5)).
pub const MODE_TELLS_ALL: bool = true;
/// How a directory is opened for reading. `NOATIME`: a walk that reads directories must not change their times.
pub const READ_DIR: OFlags =
    OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NOATIME);
const READ_FILE: OFlags =
    OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOATIME);
const PIN: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// The longest part of a path that `openat2` is given in one call, well below PATH_MAX (4096).
const LONGEST_PATH: usize = 3800;
const CAPABILITIES: &str = "security.capability";

/// Of an open inode.
pub fn stat_of(fd: impl AsFd) -> rustix::io::Result<Stat> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW, wanted).map(Stat::from)
}

/// Of what `name` in `dir` is, a link not followed.
pub fn stat_at(dir: impl AsFd, name: &CStr) -> rustix::io::Result<Stat> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, wanted).map(Stat::from)
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
            size: stat.stx_size,
            changed: (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        }
    }
}

/// The coarse clock, which stamps inodes.
pub fn stamping_clock() -> (i64, u32) {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    // Nanoseconds of a second, always below 2^32.
    (now.tv_sec, now.tv_nsec as u32)
}

/// Pins what `name` in `dir` is, without opening it: no FIFO blocks, no device acts, no link is followed.
pub fn pin(dir: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, PIN, Mode::empty())
}

/// Opens the directory `name` in `dir` for reading. `XDEV` when something is mounted there, `NOTDIR` or `LOOP` when it
/// is no directory.
pub fn open_dir(dir: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    open_beneath(dir.as_fd(), name, READ_DIR)
}

/// Pins the inode at a relative path of any length, with no symbolic link, mount or `..` on the way.
pub fn pin_path(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let mut rest = path;
    let mut at: Option<OwnedFd> = None;
    while rest.len() > LONGEST_PATH {
        let cut = rest[..LONGEST_PATH].iter().rposition(|&byte| byte == b'/').ok_or(Errno::NAMETOOLONG)?;
        let base = at.as_ref().map_or(root, OwnedFd::as_fd);
        at = Some(open_beneath(base, &rest[..cut], PIN | OFlags::DIRECTORY)?);
        rest = &rest[cut + 1..];
    }
    let rest = if rest.is_empty() { b"." } else { rest };
    open_beneath(at.as_ref().map_or(root, OwnedFd::as_fd), rest, PIN)
}

/// Gives a pinned inode to `uid`:`gid`.
pub fn change_owner(fd: impl AsFd, (uid, gid): (u32, u32)) -> rustix::io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW)
}

/// Gives a pinned inode these permission bits.
pub fn change_mode(fd: BorrowedFd<'_>, mode: u32) -> rustix::io::Result<()> {
    rustix::fs::chmod(by_descriptor(fd), Mode::from_raw_mode(mode))
}

/// Opens a pinned regular file for reading, from its beginning.
pub fn reader(fd: BorrowedFd<'_>) -> io::Result<File> {
    File::open(by_descriptor(fd))
}

/// The file capabilities of a pinned inode, as the kernel keeps them; empty for nearly all.
pub fn capabilities(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut value = [0_u8; 64]; // the kernel's longest form has 24 bytes (capabilities(7), VFS_CAP_REVISION_3)
    match rustix::fs::getxattr(by_descriptor(fd), CAPABILITIES, &mut value[..]) {
        Ok(length) => Ok(value[..length].to_vec()),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Whether the regular file `name` in `dir`, which nobody can swap, has file capabilities.
pub fn has_capabilities_at(dir: impl AsFd, name: &CStr) -> io::Result<bool> {
    // It is a regular file, and stays one, so it may be opened; that costs half of going through /proc.
    let file = rustix::fs::openat(dir, name, READ_FILE, Mode::empty())?;
    match rustix::fs::fgetxattr(file, CAPABILITIES, &mut [0_u8; 64][..]) {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives a pinned inode these file capabilities.
pub fn give_capabilities(fd: BorrowedFd<'_>, value: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::setxattr(by_descriptor(fd), CAPABILITIES, value, XattrFlags::empty())
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
