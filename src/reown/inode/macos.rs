//! macOS, which has neither `O_PATH` nor openat2(2): an inode is pinned by opening it, one component after the other.
//!
//! All of it but the flag that opens a link itself is the same on Linux, where it is tested.

// Types of stat(2)'s fields differ between systems.
#![allow(clippy::unnecessary_cast, clippy::useless_conversion)]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RawMode, Uid};
use rustix::io::Errno;

use super::Stat;

/// An access control list is not told by the permission bits (chmod(1) of macOS), so no directory counts as root's alone.
pub const MODE_TELLS_ALL: bool = false;
/// How a directory is opened for reading.
pub const READ_DIR: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// How a file or a link is opened. `NONBLOCK`: a FIFO that takes its place blocks nobody.
const PIN: OFlags = OFlags::CLOEXEC.union(OFlags::NONBLOCK);

/// Opens a symbolic link itself, open(2): `O_SYMLINK`.
#[cfg(target_vendor = "apple")]
fn itself(_: FileType) -> OFlags {
    OFlags::from_bits_retain(nix::libc::O_SYMLINK as u32)
}

/// For the tests on Linux, where only `O_PATH` opens a link.
#[cfg(not(target_vendor = "apple"))]
fn itself(kind: FileType) -> OFlags {
    if kind == FileType::Symlink { OFlags::NOFOLLOW | OFlags::PATH } else { OFlags::NOFOLLOW }
}

/// Of an open inode.
pub fn stat_of(fd: impl AsFd) -> rustix::io::Result<Stat> {
    rustix::fs::fstat(fd).map(Stat::from)
}

/// Of what `name` in `dir` is, a link not followed.
pub fn stat_at(dir: impl AsFd, name: &CStr) -> rustix::io::Result<Stat> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(Stat::from)
}

impl From<rustix::fs::Stat> for Stat {
    fn from(stat: rustix::fs::Stat) -> Self {
        Self {
            id: (stat.st_dev as u64, stat.st_ino as u64),
            // Each mount has a device number of its own, getattrlist(2): ATTR_CMN_DEVID.
            mount: stat.st_dev as u64,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: u32::from(stat.st_mode),
            links: stat.st_nlink as u32,
            // Never below zero.
            size: stat.st_size as u64,
            // Nanoseconds of a second, always below 2^32.
            changed: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
        }
    }
}

/// The clock that stamps inodes.
pub fn stamping_clock() -> (i64, u32) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_secs().cast_signed(), now.subsec_nanos())
}

/// Pins what `name` in `dir` is by opening it, a link itself. `OPNOTSUPP` for what cannot be opened without an effect: a
/// socket, a FIFO, a device.
pub fn pin(dir: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let kind = stat_at(&dir, name)?.kind();
    if !matches!(kind, FileType::RegularFile | FileType::Directory | FileType::Symlink) {
        return Err(Errno::OPNOTSUPP);
    }
    rustix::fs::openat(dir, name, PIN | itself(kind), Mode::empty())
}

/// Opens the directory `name` in `dir` for reading. `XDEV` when something is mounted there, `NOTDIR` or `LOOP` when it
/// is no directory.
pub fn open_dir(dir: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let fd = rustix::fs::openat(&dir, name, READ_DIR, Mode::empty())?;
    if stat_of(&fd)?.mount != stat_of(&dir)?.mount {
        return Err(Errno::XDEV);
    }
    Ok(fd)
}

/// Pins the inode at a relative path of any length, with no symbolic link, mount or `..` on the way.
pub fn pin_path(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let mut at = root.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    let mut parts =
        path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").peekable();
    while let Some(part) = parts.next() {
        if part == b".." {
            return Err(Errno::XDEV);
        }
        let name = CString::new(part).map_err(|_| Errno::INVAL)?;
        at = if parts.peek().is_some() { open_dir(&at, &name)? } else { pin(&at, &name)? };
        if stat_of(&at)?.mount != stat_of(root)?.mount {
            return Err(Errno::XDEV);
        }
    }
    Ok(at)
}

/// Gives a pinned inode to `uid`:`gid`.
pub fn change_owner(fd: impl AsFd, (uid, gid): (u32, u32)) -> rustix::io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    #[cfg(not(target_vendor = "apple"))]
    return rustix::fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW);
    #[cfg(target_vendor = "apple")]
    rustix::fs::fchown(fd, uid, gid)
}

/// Gives a pinned inode these permission bits.
pub fn change_mode(fd: BorrowedFd<'_>, mode: u32) -> rustix::io::Result<()> {
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode as RawMode))
}

/// A pinned regular file for reading, from its beginning.
pub fn reader(fd: BorrowedFd<'_>) -> io::Result<File> {
    let mut file = File::from(fd.try_clone_to_owned()?);
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// There are no file capabilities here.
pub fn capabilities(_: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    Ok(Vec::new())
}

/// There are no file capabilities here.
pub fn has_capabilities_at(_: impl AsFd, _: &CStr) -> io::Result<bool> {
    Ok(false)
}

/// There are no file capabilities here: a record that has some is another machine's.
pub fn give_capabilities(_: BorrowedFd<'_>, _: &[u8]) -> rustix::io::Result<()> {
    Err(Errno::NOTSUP)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        rustix::fs::open(path, READ_DIR, Mode::empty()).unwrap()
    }

    #[test]
    fn pins_what_has_the_name_and_nothing_behind_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = open(dir.path());
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/b/file"), "content").unwrap();
        symlink("a/b/file", dir.path().join("link")).unwrap();
        symlink("a", dir.path().join("to-directory")).unwrap();
        let inode = |path: &str| fs::symlink_metadata(dir.path().join(path)).unwrap().ino();

        let file = pin_path(root.as_fd(), b"a/b/file").unwrap();
        assert_eq!(stat_of(&file).unwrap().id.1, inode("a/b/file"));
        for _ in 0..2 {
            let mut text = String::new();
            reader(file.as_fd()).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "content", "from its beginning each time");
        }
        change_mode(file.as_fd(), 0o4711).unwrap();
        assert_eq!(fs::metadata(dir.path().join("a/b/file")).unwrap().permissions().mode() & 0o7777, 0o4711);
        let link = pin(&root, c"link").unwrap();
        assert_eq!(
            (stat_of(&link).unwrap().id.1, stat_of(&link).unwrap().kind()),
            (inode("link"), FileType::Symlink)
        );
        assert_eq!(pin_path(root.as_fd(), b"").map(|fd| stat_of(fd).unwrap().id.1).unwrap(), inode(""));

        for (path, error) in [
            (&b"to-directory/b/file"[..], Errno::NOTDIR),
            (b"link/x", Errno::NOTDIR),
            (b"a/../a/b/file", Errno::XDEV),
            (b"a/none", Errno::NOENT),
        ] {
            let refused = pin_path(root.as_fd(), path).unwrap_err();
            // Linux says one, macOS the other, of a link where a directory was wanted.
            assert!(refused == error || refused == Errno::LOOP, "{path:?}: {refused}");
        }
        assert!(open_dir(&root, c"to-directory").is_err());
        assert!(open_dir(open(std::path::Path::new("/")), c"proc").is_err_and(|error| error == Errno::XDEV));
    }

    #[test]
    fn nothing_is_opened_that_would_act() {
        let dir = tempfile::tempdir().unwrap();
        let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let root = open(dir.path());
        for name in [c"socket", c"fifo"] {
            assert_eq!(pin(&root, name).unwrap_err(), Errno::OPNOTSUPP, "{name:?}");
        }
    }
}
