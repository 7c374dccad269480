//! Calls that only Linux has.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::Mode;

use super::{Thing, retry};

/// The root directory of process 1. Looked at from there, no mount namespace of ours can hide anything.
pub fn root_of_init(proc: &Path) -> nix::Result<OwnedFd> {
    open_root(&proc.join("1/root"))
}

/// The root directory of a process, by its link in `/proc`.
pub fn open_root(link: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    retry(|| nix::fcntl::open(link, flags, Mode::empty()))
}

/// Whatever lies at `path` when `root` is the root directory, without opening it (`O_PATH`); a symlink in the last component is
/// not followed.
pub fn find(root: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    find_as(root, path, ResolveFlag::RESOLVE_IN_ROOT)
}

/// The same where no part of `path` is a symlink.
pub fn find_plainly(root: impl AsFd, path: &Path) -> nix::Result<OwnedFd> {
    find_as(root, path, ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS)
}

fn find_as(root: impl AsFd, path: &Path, rules: ResolveFlag) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(rules);
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
pub fn details(file: &OwnedFd) -> nix::Result<Details> {
    use nix::libc::{AT_EMPTY_PATH, STATX_ATTR_ENCRYPTED, STATX_MNT_ID, STATX_TYPE, STATX_UID};
    let wanted = STATX_TYPE | STATX_UID | STATX_MNT_ID;
    let status = statx(file.as_raw_fd(), c"", AT_EMPTY_PATH, wanted)?;
    let mount = (status.stx_mnt_id, status.stx_dev_major, status.stx_dev_minor);
    Ok(Details {
        owner: status.stx_uid,
        mount: (status.stx_mask & STATX_MNT_ID != 0).then_some(mount),
        encrypted: status.stx_attributes & STATX_ATTR_ENCRYPTED as u64 != 0,
    })
}

/// Follows all links, also those of `/proc` that lead to what a process holds; with an empty path, `at` itself. File systems that may
/// answer from what they know already need not ask their server.
pub fn thing(at: impl AsFd, path: &(impl NixPath + ?Sized)) -> nix::Result<Thing> {
    use nix::libc::{AT_EMPTY_PATH, AT_NO_AUTOMOUNT, AT_STATX_DONT_SYNC, STATX_INO, STATX_MNT_ID};
    let (at, flags) = (at.as_fd().as_raw_fd(), AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC);
    let status = path.with_nix_path(|path| statx(at, path, flags, STATX_INO | STATX_MNT_ID))??;
    Ok(Thing {
        device: (status.stx_dev_major, status.stx_dev_minor),
        inode: status.stx_ino,
        mount: (status.stx_mask & STATX_MNT_ID != 0).then_some(status.stx_mnt_id),
    })
}

/// Whether no directory has a name for it any more, or ever had: a deleted file, or one in memory.
pub fn is_nameless(at: impl AsFd, path: &(impl NixPath + ?Sized)) -> nix::Result<bool> {
    use nix::libc::{AT_NO_AUTOMOUNT, AT_STATX_DONT_SYNC, STATX_NLINK};
    let (at, flags) = (at.as_fd().as_raw_fd(), AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC);
    let status = path.with_nix_path(|path| statx(at, path, flags, STATX_NLINK))??;
    Ok(status.stx_mask & STATX_NLINK != 0 && status.stx_nlink == 0)
}

/// `man 2 statx`.
#[allow(unsafe_code)] // No safe wrapper of statx exists in the nix crate.
fn statx(at: i32, path: &CStr, flags: i32, wanted: u32) -> nix::Result<nix::libc::statx> {
    let mut status = std::mem::MaybeUninit::<nix::libc::statx>::zeroed();
    // SAFETY: the path is a string with its NUL, and the buffer is a writable statx for the time of the call.
    let mut call = || unsafe { nix::libc::statx(at, path.as_ptr(), flags, wanted, status.as_mut_ptr()) };
    retry(|| Errno::result(call()))?;
    // SAFETY: all bytes zero is a valid statx, and the kernel has written one over it.
    Ok(unsafe { status.assume_init() })
}

/// What threads can share, by the numbers in `linux/kcmp.h`.
#[derive(Debug, Clone, Copy)]
pub enum Common {
    /// The table of open files.
    Files = 2,
    /// Working and root directory, and with them the mount namespace: a thread that leaves it gets its own
    /// (`unshare(2)`, `setns(2)`).
    Directories = 3,
}

/// Whether two threads certainly share it. "No" also when the kernel does not tell.
#[allow(unsafe_code)] // No safe wrapper of kcmp exists.
pub fn share(what: Common, one: u32, other: u32) -> bool {
    // SAFETY: kcmp (man 2 kcmp) takes five integers, touches no memory of ours and changes nothing.
    unsafe { nix::libc::syscall(nix::libc::SYS_kcmp, one, other, what as i32, 0_u64, 0_u64) == 0 }
}
