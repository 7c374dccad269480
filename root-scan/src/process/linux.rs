//! Linux: `/proc`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::fcntl::AT_FDCWD;

use crate::doubt::Doubt;
use crate::helper::Helper;
use crate::roots::Roots;
use crate::sys;

use super::elsewhere::{Elsewhere, Mounts};
use super::text::Searcher;
use super::{ROUNDS, kernel, names, one, sight};

/// How many threads look at processes. Nearly all of the time goes by in the kernel, which makes the texts of `/proc` anew for each reader.
const THREADS: usize = 4;
/// For fewer processes than this another thread is not worth its start.
const PROCESSES_A_THREAD: usize = 32;

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
    /// that the kernel uses, as seen from `root`, the root directory of process 1. `eyes` look where a process could make us wait for ever.
    ///
    /// # Errors
    /// Anything that may hide one.
    pub fn scan(&self, root: BorrowedFd<'_>, eyes: &mut Helper, roots: &mut Roots) -> Result<(), Doubt> {
        let directory = self.directory.as_fd();
        let elsewhere = Elsewhere::new(root, eyes, self.mounts_of_init()?)?;
        let shared = one::Shared::new(self.device, roots, elsewhere);
        let mut seen = BTreeSet::new();
        for _ in 0..ROUNDS {
            let mut new = numbers(directory, self.path)?;
            new.retain(|pid| seen.insert(*pid));
            if new.is_empty() {
                break;
            }
            self.each(&new, &shared)?;
        }
        kernel::scan((directory, self.path), root, &mut one::Scanner::new(&shared))?;
        shared.find_the_rest()
    }

    fn mounts_of_init(&self) -> Result<Mounts, Doubt> {
        let mut mounts = Mounts::new();
        let (name, place) = (OsStr::new("1/mountinfo"), || self.path.join("1/mountinfo"));
        let each = |line: &[u8]| {
            mounts.extend(names::mount(line));
            Ok(())
        };
        one::read(self.directory.as_fd(), name, place, |file| Searcher::new().lines(file, each))?;
        Ok(mounts)
    }

    /// Scans these processes in a few threads; where none can be started, in this one.
    fn each(&self, pids: &[u32], shared: &one::Shared<'_>) -> Result<(), Doubt> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut scanner = one::Scanner::new(shared);
            while let Some(pid) = pids.get(next.fetch_add(1, Ordering::Relaxed)) {
                scanner.process(self.directory.as_fd(), self.path, *pid)?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let others = pids.len().div_ceil(PROCESSES_A_THREAD).min(THREADS) - 1;
            let start = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
            let others: Vec<_> = (0..others).map_while(start).collect();
            let mine = work();
            // A doubt of any is one of all; a panic is none that could be answered.
            others
                .into_iter()
                .map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .fold(mine, Result::and)
        })
    }
}

/// The entries of a directory of `/proc` that are numbers: processes, threads.
pub(super) fn numbers(directory: BorrowedFd<'_>, path: &Path) -> Result<Vec<u32>, Doubt> {
    let wrap = |errno| Doubt::unreadable(path, errno);
    let again = sys::open_dir(directory, ".").map_err(wrap)?;
    let mut numbers = Vec::new();
    sys::list(again, wrap, |entry| {
        numbers.extend(entry.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
        Ok(())
    })?;
    Ok(numbers)
}
