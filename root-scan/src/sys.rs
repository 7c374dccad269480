//! The few system calls of this crate that look at files. None of them opens anything but a directory or a file of `/proc`.

use std::ffi::{CStr, OsString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::NixPath;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{FileStat, Mode, SFlag};

/// A directory to list. Never follows a symlink in the last component.
pub fn open_dir(at: impl AsFd, path: &(impl NixPath + ?Sized)) -> nix::Result<OwnedFd> {
    retry(|| open(&at, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW))
}

/// The root directory of process 1. Looked at from there, no mount namespace of ours can hide anything.
pub fn root_of_init(proc: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    retry(|| nix::fcntl::open(&proc.join("1/root"), flags, Mode::empty()))
}

/// Whatever lies at `path` when `root` is the root directory, without opening it (`O_PATH`); a symlink in the last component is
/// not followed.
pub fn find(root: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    let mut attempts = 0;
    loop {
        match nix::fcntl::openat2(&root, path, how) {
            // Something was renamed meanwhile and a symlink holds `..` (man 2 openat2).
            Err(Errno::EAGAIN) if attempts < 100 => attempts += 1,
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// A directory to look things up in.
pub fn open_path(at: impl AsFd, path: &(impl NixPath + ?Sized)) -> nix::Result<OwnedFd> {
    retry(|| open(&at, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW))
}

/// A file of `/proc`.
pub fn open_file(at: impl AsFd, path: &(impl NixPath + ?Sized)) -> nix::Result<OwnedFd> {
    retry(|| open(&at, path, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK))
}

/// The text of a symlink.
pub fn read_link(at: impl AsFd, path: &(impl NixPath + ?Sized)) -> nix::Result<OsString> {
    retry(|| nix::fcntl::readlinkat(&at, path))
}

/// `lstat`; with an empty path, of `at` itself.
pub fn status(at: impl AsFd, path: &(impl NixPath + ?Sized)) -> nix::Result<FileStat> {
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH;
    retry(|| nix::sys::stat::fstatat(&at, path, flags))
}

/// Whether it is a regular file, which nothing can lie below.
pub fn is_plain(status: &FileStat) -> bool {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
}

/// What `statx` tells of an open file, and `stat` does not.
#[derive(Debug, Clone, Copy)]
pub struct Details {
    /// Uid of the owner.
    pub owner: u32,
    /// Number of the mount, and of the device: the kernel gives numbers of mounts again soon after they are free, and the device
    /// tells most of those apart. `None` before Linux 5.8.
    pub mount: Option<(u64, u32, u32)>,
    /// Whether it is a directory whose names its file system encrypts (`fscrypt`).
    pub encrypted: bool,
}

/// Details of an open file (`man 2 statx`).
#[allow(unsafe_code)] // No safe wrapper of statx exists in the nix crate.
pub fn details(file: &OwnedFd) -> nix::Result<Details> {
    use nix::libc::{AT_EMPTY_PATH, STATX_ATTR_ENCRYPTED, STATX_MNT_ID, STATX_TYPE, STATX_UID, statx};
    let mut status = std::mem::MaybeUninit::<statx>::zeroed();
    let wanted = STATX_TYPE | STATX_UID | STATX_MNT_ID;
    // SAFETY: the path is a string with its NUL, and the buffer is a writable statx for the time of the call.
    let mut call =
        || unsafe { statx(file.as_raw_fd(), c"".as_ptr(), AT_EMPTY_PATH, wanted, status.as_mut_ptr()) };
    retry(|| Errno::result(call()))?;
    // SAFETY: all bytes zero is a valid statx, and the kernel has written one over it.
    let status = unsafe { status.assume_init() };
    let mount = (status.stx_mnt_id, status.stx_dev_major, status.stx_dev_minor);
    Ok(Details {
        owner: status.stx_uid,
        mount: (status.stx_mask & STATX_MNT_ID != 0).then_some(mount),
        encrypted: status.stx_attributes & STATX_ATTR_ENCRYPTED as u64 != 0,
    })
}

/// Reads once.
pub fn read(file: impl AsFd, buffer: &mut [u8]) -> nix::Result<usize> {
    retry(|| nix::unistd::read(&file, buffer))
}

/// Calls `each` with name and type of every entry but `.` and `..`, until it fails.
///
/// # Errors
/// What `each` gave, or the kernel's error as `wrap` sees it.
pub fn list<E>(
    directory: OwnedFd,
    wrap: impl Fn(Errno) -> E,
    mut each: impl FnMut(&CStr, Option<Type>) -> Result<(), E>,
) -> Result<(), E> {
    let mut directory = Dir::from_fd(directory).map_err(&wrap)?;
    for entry in directory.iter() {
        let entry = entry.map_err(&wrap)?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            each(entry.file_name(), entry.file_type())?;
        }
    }
    Ok(())
}

/// Whether two threads certainly share their table of open files. "No" also when the kernel does not tell.
#[allow(unsafe_code)] // No safe wrapper of kcmp exists.
pub fn share_files(one: u32, other: u32) -> bool {
    const KCMP_FILES: i32 = 2;
    // SAFETY: kcmp (man 2 kcmp) takes five integers, touches no memory of ours and changes nothing.
    unsafe { nix::libc::syscall(nix::libc::SYS_kcmp, one, other, KCMP_FILES, 0_u64, 0_u64) == 0 }
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
