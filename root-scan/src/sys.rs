//! The few system calls of this crate that look at files. None of them opens anything but a directory or a file of `/proc`.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};

use nix::NixPath;
use nix::dir::{Dir, Entry};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, SFlag};

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "linux")]
pub use linux::{
    Common, Details, details, find, find_plainly, is_nameless, open_root, root_of_init, share, thing,
};
#[cfg(target_os = "macos")]
pub use macos::{find, root_of_init};

/// Which file something is, whatever leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thing {
    /// Major and minor number of its device, as `stat` has them.
    pub device: (u32, u32),
    /// Number of its inode on that.
    pub inode: u64,
    /// Number of the mount that leads to it. `None` before Linux 5.8.
    pub mount: Option<u64>,
}

/// A directory to list. Never follows a symlink in the last component.
pub fn open_dir(at: impl AsFd, path: &(impl NixPath + ?Sized)) -> nix::Result<OwnedFd> {
    retry(|| open(&at, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW))
}

/// A directory to look things up in.
pub fn open_path(at: impl AsFd, path: &(impl NixPath + ?Sized)) -> nix::Result<OwnedFd> {
    retry(|| open(&at, path, LOOK_UP | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW))
}

/// Opens for looking things up in it only, where there is such a way.
#[cfg(target_os = "linux")]
const LOOK_UP: OFlag = OFlag::O_PATH;
#[cfg(not(target_os = "linux"))]
const LOOK_UP: OFlag = OFlag::O_RDONLY;

/// A file of `/proc`.
#[cfg(target_os = "linux")]
pub fn open_file(at: impl AsFd, path: &(impl NixPath + ?Sized)) -> nix::Result<OwnedFd> {
    retry(|| open(&at, path, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK))
}

/// The text of a symlink.
pub fn read_link(at: impl AsFd, path: &(impl NixPath + ?Sized)) -> nix::Result<OsString> {
    retry(|| nix::fcntl::readlinkat(&at, path))
}

/// As [`status`] asks.
#[cfg(target_os = "linux")]
const STATUS: AtFlags = AtFlags::AT_SYMLINK_NOFOLLOW.union(AtFlags::AT_EMPTY_PATH);
#[cfg(not(target_os = "linux"))]
const STATUS: AtFlags = AtFlags::AT_SYMLINK_NOFOLLOW;

/// `lstat`; with an empty path, on Linux, of `at` itself.
pub fn status(at: impl AsFd, path: &(impl NixPath + ?Sized)) -> nix::Result<FileStat> {
    retry(|| nix::sys::stat::fstatat(&at, path, STATUS))
}

/// Whether it is a regular file, which nothing can lie below.
pub fn is_plain(status: &FileStat) -> bool {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
}

/// Whether it is a directory.
#[cfg(target_os = "linux")]
pub fn is_directory(status: &FileStat) -> bool {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

/// Reads once.
#[cfg(target_os = "linux")]
pub fn read(file: impl AsFd, buffer: &mut [u8]) -> nix::Result<usize> {
    retry(|| nix::unistd::read(&file, buffer))
}

/// Calls `each` with every entry but `.` and `..`, until it fails.
///
/// # Errors
/// What `each` gave, or the kernel's error as `wrap` sees it.
pub fn list<E>(
    directory: OwnedFd,
    wrap: impl Fn(Errno) -> E,
    mut each: impl FnMut(&Entry) -> Result<(), E>,
) -> Result<(), E> {
    let mut directory = Dir::from_fd(directory).map_err(&wrap)?;
    for entry in directory.iter() {
        let entry = entry.map_err(&wrap)?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            each(&entry)?;
        }
    }
    Ok(())
}

fn open(at: impl AsFd, path: &(impl NixPath + ?Sized), flags: OFlag) -> nix::Result<OwnedFd> {
    nix::fcntl::openat(at, path, flags | OFlag::O_CLOEXEC, Mode::empty())
}

fn retry<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}
