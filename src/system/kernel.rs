//! What Linux and macOS have different calls for.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::Mode;
use nix::sys::statvfs::statvfs;

use crate::platform::paths::MAC_VERSION;

const READ_DIR: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_RDONLY).union(OFlag::O_CLOEXEC);

/// Whether the running machine is a Mac. It is asked and not the compiler, because a Linux program runs on simulated Macs.
pub fn is_mac() -> bool {
    cfg!(target_os = "macos") || Path::new(MAC_VERSION).exists()
}

/// Where a process finds its descriptors by number.
const DESCRIPTORS: &str = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };

/// Has every descriptor but the first three closed when this process becomes another program.
///
/// # Errors
/// When they cannot be listed.
#[allow(unsafe_code)] // a descriptor that is known by its number alone
pub fn close_others_on_exec() -> io::Result<()> {
    for entry in std::fs::read_dir(DESCRIPTORS)? {
        let number = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(number) = number.filter(|number: &i32| *number > 2) {
            // SAFETY: it changes a flag of a descriptor, and no memory. The one that lists them is closed by then, which is an error.
            let _ = unsafe { nix::libc::fcntl(number, nix::libc::F_SETFD, nix::libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Opens a directory for reading, with no symbolic link anywhere on the way.
///
/// # Errors
/// `ENOENT` when it is not there, `ELOOP` or `ENOTDIR` where a link is.
#[cfg(target_os = "linux")]
pub fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    use nix::fcntl::{AT_FDCWD, OpenHow, ResolveFlag, openat2};
    openat2(AT_FDCWD, path, OpenHow::new().flags(READ_DIR).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS))
}

/// Opens a directory for reading, with no symbolic link anywhere on the way.
///
/// # Errors
/// `ENOENT` when it is not there, `ELOOP` or `ENOTDIR` where a link is.
#[cfg(not(target_os = "linux"))]
pub fn open_dir(path: &Path) -> Result<OwnedFd, Errno> {
    open_dir_in_steps(path)
}

/// The same for a kernel without openat2(2).
#[cfg_attr(target_os = "linux", allow(dead_code))]
fn open_dir_in_steps(path: &Path) -> Result<OwnedFd, Errno> {
    let mut directory = open("/", READ_DIR, Mode::empty())?;
    for part in path.components() {
        match part {
            Component::RootDir => {}
            Component::Normal(name) => {
                directory = openat(&directory, name, READ_DIR | OFlag::O_NOFOLLOW, Mode::empty())?;
            }
            Component::CurDir | Component::ParentDir | Component::Prefix(_) => return Err(Errno::EINVAL),
        }
    }
    Ok(directory)
}

/// Opens a file for reading, with no symbolic link anywhere on the way. A FIFO in its place does not block.
///
/// # Errors
/// `ENOENT` when it is not there, `ELOOP` or `ENOTDIR` where a link is.
pub fn open_file(path: &Path) -> Result<OwnedFd, Errno> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::EISDIR) };
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    openat(open_dir(parent)?, name, flags, Mode::empty())
}

/// Brings all of a file system to the disk, by an open file or directory of it.
///
/// # Errors
/// The system's reason.
pub fn sync_file_system(file: impl AsFd) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return Ok(rustix::fs::syncfs(file)?);
    #[cfg(not(target_os = "linux"))]
    {
        // sync(2) hands everything to the drive; the drive is told to keep it by fcntl(2)'s F_FULLFSYNC.
        nix::unistd::sync();
        Ok(rustix::fs::fcntl_fullfsync(file)?)
    }
}

/// Makes `file` at least `size` bytes long, with blocks of the file system behind all of them.
///
/// # Errors
/// When there is no such room; the file may be longer then.
pub fn take_blocks(file: &File, size: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, size)?);
    #[cfg(not(target_os = "linux"))]
    {
        use std::os::unix::fs::FileExt;
        let zeros = vec![0; 1 << 20];
        let mut at = file.metadata()?.len();
        while at < size {
            let part = zeros.len().min(usize::try_from(size - at).unwrap_or(zeros.len()));
            file.write_all_at(&zeros[..part], at)?;
            at += part as u64;
        }
        Ok(())
    }
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes free for root.
    pub free_bytes: u64,
    /// Inodes in use.
    pub used_inodes: u64,
}

/// The room on the file system that `path` lies on; `None` when it does not say.
#[allow(clippy::unnecessary_cast)] // the fields' types differ between systems
pub fn room(path: &Path) -> Option<Room> {
    let stat = statvfs(path).ok()?;
    Some(Room {
        free_bytes: (stat.blocks_free() as u64).saturating_mul(stat.fragment_size() as u64),
        used_inodes: (stat.files() as u64).saturating_sub(stat.files_free() as u64),
    })
}

/// Whether two threads have one table of descriptors, as kcmp(2) tells; false where it cannot.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // no library knows it
pub fn share_descriptors(one: i32, other: i32) -> bool {
    /// `KCMP_FILES` of `linux/kcmp.h`.
    const FILES: i32 = 2;
    // SAFETY: kcmp(2) takes numbers only, and compares.
    unsafe { nix::libc::syscall(nix::libc::SYS_kcmp, one, other, FILES, 0, 0) == 0 }
}

/// Whether two threads have one table of descriptors. macOS does not tell.
#[cfg(not(target_os = "linux"))]
pub fn share_descriptors(_one: i32, _other: i32) -> bool {
    false
}

/// The owner of the file that `path` leads to, as the kernel knows it: a file system that a program serves, and that may never answer, is not
/// asked. `None` when there is no telling, and for what is no regular file.
#[cfg(target_os = "linux")]
pub fn owner_of_file(path: &Path) -> Option<u32> {
    use rustix::fs::{AtFlags, CWD, FileType, StatxFlags};
    let wanted = StatxFlags::UID | StatxFlags::TYPE;
    let found = rustix::fs::statx(CWD, path, AtFlags::STATX_DONT_SYNC, wanted).ok()?;
    let is_file = FileType::from_raw_mode(found.stx_mode.into()) == FileType::RegularFile;
    is_file.then_some(found.stx_uid)
}

/// The owner of the file that `path` leads to. macOS cannot be asked what it knows already.
#[cfg(not(target_os = "linux"))]
pub fn owner_of_file(path: &Path) -> Option<u32> {
    let found = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    Some(std::os::unix::fs::MetadataExt::uid(&found))
}

/// Takes from this process, and what it becomes, the way to more rights that set-uid programs are. macOS has no such switch; there a
/// child runs as `nobody` without more.
///
/// # Errors
/// The system's reason.
pub fn set_no_new_privileges() -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_no_new_privs()?;
    Ok(())
}

/// Limits what this process, and what it becomes, may map, in bytes. Not on a Mac: its kernel refuses a limit below what is mapped already
/// (`dosetrlimit` in XNU's `bsd/kern/kern_resource.c`), and each program there begins with more than any limit that makes sense here.
///
/// # Errors
/// The system's reason.
pub fn limit_memory(bytes: u64) -> Result<(), Errno> {
    if is_mac() { Ok(()) } else { setrlimit(Resource::RLIMIT_AS, bytes, bytes) }
}

/// Takes all supplementary groups from this process.
///
/// # Errors
/// The system's reason.
pub fn drop_groups() -> Result<(), Errno> {
    #[cfg(target_os = "linux")]
    return nix::unistd::setgroups(&[]);
    #[cfg(not(target_os = "linux"))]
    {
        // SAFETY: a list of no groups; nothing is read.
        #[allow(unsafe_code)] // nix has no wrapper for macOS
        let done = unsafe { nix::libc::setgroups(0, std::ptr::null()) };
        Errno::result(done).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn a_link_on_the_way_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        fs::create_dir_all(base.join("a/b")).unwrap();
        symlink("a", base.join("link")).unwrap();
        for open in [open_dir, open_dir_in_steps] {
            let opened = File::from(open(&base.join("a/b")).unwrap());
            assert_eq!(opened.metadata().unwrap().ino(), fs::metadata(base.join("a/b")).unwrap().ino());
            assert!(matches!(open(&base.join("link/b")), Err(Errno::ELOOP | Errno::ENOTDIR)));
            assert!(matches!(open(&base.join("link")), Err(Errno::ELOOP | Errno::ENOTDIR)));
            assert!(matches!(open(&base.join("none")), Err(Errno::ENOENT)));
        }
    }

    #[test]
    fn taken_blocks_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = File::create(dir.path().join("file")).unwrap();
        take_blocks(&file, 3 << 20).unwrap();
        let metadata = file.metadata().unwrap();
        assert!(metadata.len() >= 3 << 20 && metadata.blocks() * 512 >= 3 << 20);
        sync_file_system(&file).unwrap();
        assert!(room(dir.path()).unwrap().free_bytes > 0);
    }
}
