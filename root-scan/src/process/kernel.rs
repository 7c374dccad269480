//! What the kernel itself runs or reads.

use std::os::fd::BorrowedFd;
use std::path::Path;

use super::one::Scanner;
use crate::doubt::Doubt;

/// Programs that the kernel starts, and files that it swaps to and mounts from. Not every kernel has all of them.
const FILES: [&str; 6] = [
    "sys/kernel/modprobe",
    "sys/kernel/fbsplash",
    "sys/kernel/poweroff_cmd",
    "sys/kernel/core_pattern",
    "swaps",
    "1/mountinfo",
];

/// Adds the store paths in them.
pub fn scan(directory: BorrowedFd<'_>, proc: &Path, scanner: &mut Scanner<'_>) -> Result<(), Doubt> {
    FILES.iter().try_for_each(|name| scanner.file(directory, proc, name))
}
