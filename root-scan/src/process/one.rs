//! One process: the links `exe`, `cwd`, `root`, `fd/*`, the texts `maps` and `environ`, the mounts that it sees, and its threads.
//!
//! What each error means (man 5 proc, and `fs/proc/base.c` of the kernel):
//!
//! - ENOENT, ESRCH: no such thing: the process or file is gone, or a kernel thread or zombie that has none.
//! - ENAMETOOLONG: a path of more than a page. Nix cannot register such a path (it works with whole paths), so it is no root.
//! - anything else: doubt, if the process still exists.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use super::elsewhere::Elsewhere;
use super::names::{self, Mapped};
use super::numbers;
use super::text::{Searcher, Stop};
use crate::doubt::Doubt;
use crate::roots::Roots;
use crate::store_path;
use crate::sys::{self, Common};

/// Things that are looked at together.
const TOGETHER: usize = 256;

/// What all threads of a scan find.
#[derive(Debug)]
pub struct Shared<'a> {
    device: u64,
    roots: Mutex<&'a mut Roots>,
    /// Mount namespaces whose table was read, each with the root directory from which it was read: a process sees the mounts
    /// below its own.
    tables: Mutex<HashSet<(OsString, OsString)>>,
    elsewhere: Elsewhere<'a>,
}

impl<'a> Shared<'a> {
    /// `device` is that of `/proc`.
    pub fn new(device: u64, roots: &'a mut Roots, elsewhere: Elsewhere<'a>) -> Self {
        Self { device, roots: Mutex::new(roots), tables: Mutex::default(), elsewhere }
    }

    /// Adds what no name showed to be in the store.
    pub fn find_the_rest(&self) -> Result<(), Doubt> {
        self.elsewhere.find(&mut locked(&self.roots))
    }

    fn add(&self, base_name: &[u8], place: impl Fn() -> PathBuf) -> Result<(), Doubt> {
        locked(&self.roots).add(base_name, place)
    }

    /// Adds the store paths in a text that is short; returns whether there is one.
    fn all(&self, text: &[u8], place: impl Fn() -> PathBuf) -> Result<bool, Doubt> {
        let mut found = store_path::find_all(text).peekable();
        let any = found.peek().is_some();
        found.try_for_each(|(base, _)| self.add(base, &place)).map(|()| any)
    }
}

/// What a thread that panicked held is whole enough: its panic ends the scan.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one thread uses for one process after the other.
#[derive(Debug)]
pub struct Scanner<'s, 'a> {
    shared: &'s Shared<'a>,
    searcher: Searcher,
}

impl<'s, 'a> Scanner<'s, 'a> {
    /// Adds to what is shared.
    pub fn new(shared: &'s Shared<'a>) -> Self {
        Self { shared, searcher: Searcher::new() }
    }

    /// Adds what the process `pid` holds. A process that ends meanwhile holds nothing.
    pub fn process(&mut self, proc: BorrowedFd<'_>, path: &Path, pid: u32) -> Result<(), Doubt> {
        let path = path.join(pid.to_string());
        // Everything below is looked up from here, so a new process with the same number cannot mix in.
        let directory = match sys::open_path(proc, path.file_name().unwrap_or_default()) {
            Ok(directory) => directory,
            Err(errno) if gone(errno) => return Ok(()),
            Err(errno) => return Err(Doubt::unreadable(path, errno)),
        };
        let directory = directory.as_fd();
        match self.whole(directory, &path, pid) {
            // Teardown gives odd errors; what is true of a process that is gone by now does not matter.
            Err(Doubt::Unreadable { .. }) if sys::status(directory, "status").is_err_and(gone) => Ok(()),
            result => result,
        }
    }

    /// Adds the store paths in a file of the kernel's, if it exists; returns whether it does.
    pub fn file(
        &mut self,
        directory: BorrowedFd<'_>,
        path: &Path,
        name: impl AsRef<OsStr>,
    ) -> Result<bool, Doubt> {
        let place = || path.join(name.as_ref());
        read(directory, name.as_ref(), place, |file| {
            self.searcher.search(file, |base| self.shared.add(base, place))
        })
    }

    /// Adds the store paths in the text of a link; one without is looked behind. Returns the text; it is empty when it is too long to be read.
    fn link(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &(impl nix::NixPath + ?Sized),
        place: impl Fn() -> PathBuf,
    ) -> Result<Option<OsString>, Doubt> {
        match sys::read_link(directory, name) {
            Ok(text) => {
                if !self.shared.all(text.as_bytes(), &place)? {
                    self.shared.elsewhere.link(directory, name, &text, place)?;
                }
                Ok(Some(text))
            }
            Err(Errno::ENAMETOOLONG) => Ok(Some(OsString::new())),
            Err(errno) if gone(errno) => Ok(None),
            Err(errno) => Err(Doubt::unreadable(place(), errno)),
        }
    }

    fn whole(&mut self, directory: BorrowedFd<'_>, path: &Path, pid: u32) -> Result<(), Doubt> {
        let status = match sys::status(directory, "task") {
            // Nothing of a process: it is gone, or something else lies over it.
            Err(errno) if gone(errno) => sys::status(directory, "."),
            result => result,
        };
        let status = match status {
            Ok(status) if status.st_dev != self.shared.device => {
                return Err(Doubt::Blind(format!("something is mounted over {}", path.display())));
            }
            Ok(status) => status,
            Err(errno) if gone(errno) => return Ok(()),
            Err(errno) => return Err(Doubt::unreadable(path.join("task"), errno)),
        };
        let alive = self.everything(directory, path)?;
        // Two links, and one more for each thread (`proc_task_getattr`): most processes are done here.
        if status.st_nlink != 3 {
            self.threads(directory, path, pid, alive)?;
        }
        Ok(())
    }

    /// Returns whether there is a program at all.
    fn everything(&mut self, directory: BorrowedFd<'_>, path: &Path) -> Result<bool, Doubt> {
        let alive = self.link(directory, "exe", || path.join("exe"))?.is_some();
        self.surroundings(directory, path)?;
        self.files(directory, path)?;
        if alive {
            self.maps(directory, path)?;
            self.file(directory, path, "environ")?;
        }
        Ok(alive)
    }

    /// Threads can have a directory and files of their own. And when the first thread has ended (`alive` is false), the
    /// process shows only through the others.
    fn threads(
        &mut self,
        directory: BorrowedFd<'_>,
        path: &Path,
        pid: u32,
        alive: bool,
    ) -> Result<(), Doubt> {
        let path = path.join("task");
        let tasks = match sys::open_dir(directory, "task") {
            Ok(tasks) => tasks,
            Err(errno) if gone(errno) => return Ok(()),
            Err(errno) => return Err(Doubt::unreadable(path, errno)),
        };
        for thread in numbers(tasks.as_fd(), &path)? {
            if thread == pid {
                continue;
            }
            let path = path.join(thread.to_string());
            let directory = match sys::open_path(&tasks, path.file_name().unwrap_or_default()) {
                Ok(directory) => directory,
                Err(errno) if gone(errno) => continue,
                Err(errno) => return Err(Doubt::unreadable(path, errno)),
            };
            let directory = directory.as_fd();
            if alive {
                if !sys::share(Common::Directories, pid, thread) {
                    self.surroundings(directory, &path)?;
                }
                if !sys::share(Common::Files, pid, thread) {
                    self.files(directory, &path)?;
                }
            } else {
                self.everything(directory, &path)?;
            }
        }
        Ok(())
    }

    fn files(&mut self, directory: BorrowedFd<'_>, path: &Path) -> Result<(), Doubt> {
        let path = path.join("fd");
        let wrap = |errno| Doubt::unreadable(&path, errno);
        let files = match sys::open_dir(directory, "fd") {
            Ok(files) => files,
            Err(errno) if gone(errno) => return Ok(()),
            Err(errno) => return Err(wrap(errno)),
        };
        let listed = files.try_clone().map_err(|_| wrap(Errno::EMFILE))?;
        sys::list(listed, wrap, |entry| {
            let name = entry.file_name();
            let place = || path.join(name.to_string_lossy().as_ref());
            self.link(files.as_fd(), name, place).map(drop)
        })
    }

    fn maps(&mut self, directory: BorrowedFd<'_>, path: &Path) -> Result<(), Doubt> {
        let place = || path.join("maps");
        let elsewhere = &self.shared.elsewhere;
        let is_gone = || sys::status(directory, "status").is_err_and(gone);
        let mut files: Vec<Mapped> = Vec::new();
        let mut last = Vec::new();
        let each = |line: &[u8]| {
            // A file is mapped in several pieces, one below the other: what is behind address, rights and offset is the same.
            let file = line.splitn(4, |byte| *byte == b' ').nth(3).unwrap_or_default();
            if file == last || self.shared.all(line, place)? {
                return Ok(());
            }
            last.clear();
            last.extend_from_slice(file);
            let new = |file: &Mapped| elsewhere.may_be_inside(file) && !files.contains(file);
            files.extend(names::mapped(line).filter(new));
            if files.len() >= TOGETHER { elsewhere.mapped(path, &mut files, is_gone) } else { Ok(()) }
        };
        read(directory, OsStr::new("maps"), place, |file| self.searcher.lines(file, each))?;
        elsewhere.mapped(path, &mut files, is_gone)
    }

    /// The directories of a process or thread, and what is mounted where it can see it.
    fn surroundings(&mut self, directory: BorrowedFd<'_>, path: &Path) -> Result<(), Doubt> {
        let mut link = |name| self.link(directory, name, || path.join(name));
        link("cwd")?;
        let (Some(root), Some(namespace)) = (link("root")?, link("ns/mnt")?) else { return Ok(()) };
        let key = (namespace, root);
        // A root directory whose name is too long has no text that tells it from another.
        if locked(&self.shared.tables).contains(&key) && !key.1.is_empty() {
            return Ok(());
        }
        let place = || path.join("mountinfo");
        let each = |line: &[u8]| {
            self.shared.elsewhere.mount(names::mount(line));
            self.shared.all(line, place).map(drop)
        };
        match read(directory, OsStr::new("mountinfo"), place, |file| self.searcher.lines(file, each)) {
            // Not before it was read: otherwise a process that ends now would keep us from looking where others still are.
            Ok(true) => locked(&self.shared.tables).insert(key),
            // It has just left its namespace, as it does when it ends (`mounts_open_common` in `fs/proc_namespace.c`).
            Ok(false) | Err(Doubt::Unreadable { errno: Errno::EINVAL, .. }) => false,
            Err(doubt) => return Err(doubt),
        };
        Ok(())
    }
}

/// Reads a file of the kernel's, if it exists; returns whether it does.
pub(super) fn read(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    place: impl Fn() -> PathBuf,
    read: impl FnOnce(OwnedFd) -> Result<(), Stop>,
) -> Result<bool, Doubt> {
    let read = match sys::open_file(directory, name) {
        Ok(file) => read(file),
        Err(errno) => Err(Stop::Read(errno)),
    };
    match read {
        Ok(()) => Ok(true),
        Err(Stop::Read(errno)) if gone(errno) => Ok(false),
        Err(Stop::Read(errno)) => Err(Doubt::unreadable(place(), errno)),
        Err(Stop::Doubt(doubt)) => Err(doubt),
    }
}

pub(super) fn gone(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ESRCH)
}
