//! Calls that only Linux has.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::Mode;

use super::retry;

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

/// Whether two threads certainly share their table of open files. "No" also when the kernel does not tell.
#[allow(unsafe_code)] // No safe wrapper of kcmp exists.
pub fn share_files(one: u32, other: u32) -> bool {
    const KCMP_FILES: i32 = 2;
    // SAFETY: kcmp (man 2 kcmp) takes five integers, touches no memory of ours and changes nothing.
    unsafe { nix::libc::syscall(nix::libc::SYS_kcmp, one, other, KCMP_FILES, 0_u64, 0_u64) == 0 }
}
