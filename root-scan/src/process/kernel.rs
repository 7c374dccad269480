//! What the kernel itself runs, reads, swaps to, or shows as a disk.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::statfs::fstatfs;

use super::one::{Scanner, gone};
use crate::doubt::Doubt;
use crate::sys;

/// Programs that the kernel starts, and swap files. Not every kernel has all of them.
const PROC: [&str; 6] = [
    "sys/kernel/modprobe",
    "sys/kernel/hotplug",
    "sys/kernel/fbsplash",
    "sys/kernel/poweroff_cmd",
    "sys/kernel/core_pattern",
    "swaps",
];
/// The same below `/sys`, and where firmware is loaded from.
const SYS: [&str; 2] = ["kernel/uevent_helper", "module/firmware_class/parameters/path"];
/// One file for each kind of program that has an interpreter.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";
/// `BINFMTFS_MAGIC` in `linux/magic.h`.
const BINFMT_MAGIC: u64 = 0x4249_4e4d;

/// Adds the store paths in them, all seen from the root directory of process 1.
pub fn scan(
    proc: (BorrowedFd<'_>, &Path),
    root: BorrowedFd<'_>,
    scanner: &mut Scanner<'_, '_>,
) -> Result<(), Doubt> {
    PROC.iter().try_for_each(|name| scanner.file(proc.0, proc.1, name).map(drop))?;
    let path = Path::new("/sys");
    if let Some(sysfs) = found(root, path)? {
        SYS.iter().try_for_each(|name| scanner.file(sysfs.as_fd(), path, name).map(drop))?;
    }
    loops(root, scanner)?;
    interpreters(root, scanner)
}

/// The files behind loop devices.
fn loops(root: BorrowedFd<'_>, scanner: &mut Scanner<'_, '_>) -> Result<(), Doubt> {
    let path = Path::new("/sys/block");
    let Some(block) = found(root, path)? else { return Ok(()) };
    let wrap = |errno| Doubt::unreadable(path, errno);
    sys::list(sys::open_dir(&block, ".").map_err(wrap)?, wrap, |entry| match entry.file_name().to_str() {
        Ok(name) if name.starts_with("loop") => {
            scanner.file(block.as_fd(), path, format!("{name}/loop/backing_file")).map(drop)
        }
        _ => Ok(()),
    })
}

/// Interpreters that are registered with `binfmt_misc`. Where systemd has not mounted it yet, nothing was registered either; to
/// make it do so is not for us.
fn interpreters(root: BorrowedFd<'_>, scanner: &mut Scanner<'_, '_>) -> Result<(), Doubt> {
    let path = Path::new(BINFMT);
    let Some(directory) = found(root, path)? else { return Ok(()) };
    let wrap = |errno| Doubt::unreadable(path, errno);
    let magic = fstatfs(&directory).map_err(wrap)?.filesystem_type().0;
    if u64::try_from(magic) != Ok(BINFMT_MAGIC) {
        return Ok(());
    }
    sys::list(sys::open_dir(&directory, ".").map_err(wrap)?, wrap, |entry| {
        match entry.file_name().to_bytes() {
            // Can only be written to.
            b"register" => Ok(()),
            name => scanner.file(directory.as_fd(), path, OsStr::from_bytes(name)).map(drop),
        }
    })
}

fn found(root: BorrowedFd<'_>, path: &Path) -> Result<Option<OwnedFd>, Doubt> {
    match sys::find(root, path) {
        Ok(found) => Ok(Some(found)),
        Err(errno) if gone(errno) || errno == Errno::ENOTDIR => Ok(None),
        Err(errno) => Err(Doubt::unreadable(path, errno)),
    }
}
