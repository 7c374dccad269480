//! Linux: `/proc`.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::fcntl::AT_FDCWD;

use crate::doubt::Doubt;
use crate::roots::Roots;
use crate::sys;

use super::{ROUNDS, kernel, one, sight};

/// All processes of the machine.
#[derive(Debug)]
pub struct Processes<'a> {
    path: &'a Path,
    directory: OwnedFd,
    device: u64,
}

impl<'a> Processes<'a> {
    /// Makes sure that `path` (`/proc`) shows them, and all of each.
    ///
    /// # Errors
    /// When something may be hidden.
    pub fn open(path: &'a Path) -> Result<Self, Doubt> {
        let directory = sys::open_dir(AT_FDCWD, path).map_err(|errno| Doubt::unreadable(path, errno))?;
        let device = sight::check(directory.as_fd(), path)?;
        Ok(Self { path, directory, device })
    }

    /// Adds the store paths that any process uses or names in its environment, that are mounted where any process sees it, and those
    /// that the kernel uses, as seen from `root`.
    ///
    /// # Errors
    /// Anything that may hide one.
    pub fn scan(&self, root: BorrowedFd<'_>, roots: &mut Roots) -> Result<(), Doubt> {
        let directory = self.directory.as_fd();
        let mut scanner = one::Scanner::new(self.device, roots);
        let mut seen = BTreeSet::new();
        for _ in 0..ROUNDS {
            let mut new = numbers(directory, self.path)?;
            new.retain(|pid| seen.insert(*pid));
            for pid in &new {
                scanner.process(directory, self.path, *pid)?;
            }
            if new.is_empty() {
                break;
            }
        }
        kernel::scan((directory, self.path), root, &mut scanner)
    }
}

/// The entries of a directory of `/proc` that are numbers: processes, threads.
pub(super) fn numbers(directory: BorrowedFd<'_>, path: &Path) -> Result<Vec<u32>, Doubt> {
    let wrap = |errno| Doubt::unreadable(path, errno);
    let again = sys::open_dir(directory, ".").map_err(wrap)?;
    let mut numbers = Vec::new();
    sys::list(again, wrap, |name, _| {
        numbers.extend(name.to_str().ok().and_then(|name| name.parse::<u32>().ok()));
        Ok(())
    })?;
    Ok(numbers)
}
