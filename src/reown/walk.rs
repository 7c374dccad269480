//! One pass over the tree by several threads, with a bounded number of descriptors and no recursion.
//!
//! A thread goes depth first over a stack of its own. A directory is read once: what is no directory is dealt with while it is
//! read, and the names of its subdirectories are kept. When a thread has nothing to do, another gives it a part of what it
//! has just read, or half of the subdirectories that it has nearest to the root.

use std::collections::HashSet;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{FileType, SeekFrom};

use super::inode::{self, Id};
use super::listing::Reader;
use super::place::{Dir, Names, Place};
use super::policy::Policy;
use super::queue::Queue;
use super::visit::Visitor;
use super::{Outcome, Progress, ReownError, Tree, links::Links};

/// Directories that a thread holds open on its stack; those above are opened again through `..`.
const OPEN: usize = 32;
/// More threads than this only wait for the file system's journal.
const MOST_THREADS: usize = 8;
/// Bytes of subdirectories' names after which they are walked before more of their directory is read.
pub const SUBDIRS_AT_ONCE: usize = 256 << 10;
/// With fewer entries than this, giving them away costs more than it brings.
const WORTH_GIVING: usize = 64;

/// What all threads of a pass share.
#[derive(Debug)]
pub struct Pass<'a> {
    pub tree: &'a Tree,
    pub policy: &'a Policy<'a>,
    pub record: &'a std::path::Path,
    /// The mount that the root lies on.
    pub mount: u64,
    /// When the pass began, by the clock that stamps inodes.
    pub started: (i64, u32),
    pub links: Links,
    /// Inodes that an earlier pass found to have a name outside: their names in the tree are reported.
    pub foreign: HashSet<Id>,
    pub progress: &'a Progress,
    pub cancel: &'a AtomicBool,
}

struct Task {
    dir: Arc<Dir>,
    entries: Names,
    part: Part,
}

/// What a task is of its directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All of it: the directory is to be read. Only the root comes so.
    All,
    /// Some entries, which the directory waits for.
    Entries,
    /// Some subdirectories.
    Subdirs,
}

struct Frame {
    place: Arc<Place>,
    /// `None` while it is far up the stack.
    dir: Option<Arc<Dir>>,
    subdirs: Names,
    /// Where reading goes on.
    position: u64,
    is_read: bool,
}

struct Worker<'a> {
    visitor: Visitor<'a>,
    queue: &'a Queue<Task>,
    stack: Vec<Frame>,
    reader: Reader,
    entries: Names,
}

/// Walks everything below `root`, which the caller has dealt with. Returns what was seen and done, and the inodes that
/// have names elsewhere.
pub fn run(pass: Pass<'_>, root: Arc<Dir>) -> Result<(Outcome, HashSet<Id>), ReownError> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let queue = Queue::new(threads, Task { dir: root, entries: Names::default(), part: Part::All });
    let total = Mutex::new(Ok(Outcome::default()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let _stop = StopOnPanic(&queue);
                let result = Worker::new(&pass, &queue).work();
                let mut total = total.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                match (&mut *total, result) {
                    (Ok(total), Ok(outcome)) => total.add(outcome),
                    (Ok(_), Err(error)) => *total = Err(error),
                    (Err(_), _) => {}
                }
            });
        }
    });
    let mut outcome = total.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())?;
    // The last exceptions, fewer than a batch.
    let mut last = Visitor::new(&pass);
    last.flush()?;
    outcome.add(last.outcome);
    Ok((outcome, pass.links.incomplete()))
}

/// Lets the other threads end when one panics, so that the panic is seen and nothing hangs.
struct StopOnPanic<'a>(&'a Queue<Task>);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

impl<'a> Worker<'a> {
    fn new(pass: &'a Pass<'a>, queue: &'a Queue<Task>) -> Self {
        let (visitor, reader) = (Visitor::new(pass), Reader::default());
        Self { visitor, queue, stack: Vec::new(), reader, entries: Names::default() }
    }

    fn work(mut self) -> Result<Outcome, ReownError> {
        while let Some(task) = self.queue.take() {
            self.task(task).inspect_err(|_| self.queue.stop())?;
        }
        Ok(self.visitor.outcome)
    }

    fn task(&mut self, task: Task) -> Result<(), ReownError> {
        self.stack.push(Frame::new(Arc::clone(&task.dir), task.part != Part::All));
        self.entries = task.entries;
        self.deal_with_entries()?;
        if task.part == Part::Entries {
            self.visitor.end_list(&task.dir)?;
        }
        drop(task.dir);
        let mut name = Vec::new();
        while let Some(top) = self.stack.last_mut() {
            if top.subdirs.pop(&mut name) {
                self.descend(&name)?;
            } else if !top.is_read {
                self.read()?;
            } else {
                self.ascend()?;
            }
        }
        Ok(())
    }

    /// Enters a subdirectory of the topmost frame.
    fn descend(&mut self, name: &[u8]) -> Result<(), ReownError> {
        self.visitor.check_cancel()?;
        self.give_subdirs();
        let (Some(Frame { dir: Some(dir), .. }), Ok(name)) =
            (self.stack.last(), CStr::from_bytes_with_nul(name))
        else {
            return Ok(());
        };
        let Some(child) = self.visitor.enter(dir, name)? else { return Ok(()) };
        self.stack.push(Frame::new(Arc::new(child), false));
        if let Some(far) = self.stack.len().checked_sub(OPEN + 1) {
            self.stack[far].dir = None;
        }
        Ok(())
    }

    /// Leaves the topmost frame, and opens the one below it if that was closed.
    fn ascend(&mut self) -> Result<(), ReownError> {
        let (Some(done), Some(above)) = (self.stack.pop(), self.stack.last_mut()) else { return Ok(()) };
        if above.dir.is_some() {
            return Ok(());
        }
        // The frame below the only open one is opened before that is closed, so a frame that ends is open.
        let opened = done.dir.as_ref().and_then(|dir| above.open_through(dir, self.visitor.pass.mount));
        if opened.is_none() {
            // Somebody moved `done` away. All frames left are closed and have no way back to them: another pass.
            self.visitor.outcome.unsettled.push(done.place.join(b""));
            self.stack.clear();
        }
        Ok(())
    }

    /// Reads on in the topmost frame's directory.
    fn read(&mut self) -> Result<(), ReownError> {
        loop {
            self.visitor.check_cancel()?;
            let Some(Frame { dir: Some(dir), position, is_read, subdirs, .. }) = self.stack.last_mut() else {
                return Ok(());
            };
            if subdirs.size() > SUBDIRS_AT_ONCE {
                return Ok(());
            }
            let dir = Arc::clone(dir);
            let entries = &mut self.entries;
            let read =
                self.reader.read(&dir.fd, position, |name, inode, kind| entries.push(name, inode, kind));
            match read {
                Ok(is_end) => *is_read = is_end,
                Err(error) => {
                    *is_read = true;
                    self.visitor.trouble(&dir.place, b"", error)?;
                }
            }
            let is_read = *is_read;
            if self.entries.len() >= WORTH_GIVING && self.queue.is_hungry() {
                let entries = std::mem::take(&mut self.entries);
                dir.place.unread.fetch_add(1, Ordering::Relaxed);
                self.queue.give(Task { dir: Arc::clone(&dir), entries, part: Part::Entries });
            } else {
                self.deal_with_entries()?;
            }
            if is_read {
                return self.visitor.end_list(&dir);
            }
        }
    }

    /// Visits what was read and is no directory; directories become subdirectories of the topmost frame.
    fn deal_with_entries(&mut self) -> Result<(), ReownError> {
        let Some(Frame { dir: Some(dir), subdirs, .. }) = self.stack.last_mut() else { return Ok(()) };
        self.entries.sort();
        let (before, changed) = (self.visitor.outcome.visited, self.visitor.outcome.changed);
        for (name, inode, kind) in self.entries.iter() {
            self.visitor.check_cancel()?;
            if self.visitor.is_skipped(&dir.place, name.to_bytes()) {
                continue;
            }
            if kind == FileType::Directory || self.visitor.visit(dir, name)? {
                subdirs.push(name, inode, FileType::Directory);
            }
        }
        self.entries.clear();
        self.visitor.count_progress(before, changed);
        Ok(())
    }

    /// Gives half of the subdirectories nearest to the root to a thread that has nothing to do.
    fn give_subdirs(&mut self) {
        if !self.queue.is_hungry() {
            return;
        }
        let rich = |frame: &&mut Frame| frame.dir.is_some() && frame.subdirs.len() > 0;
        if let Some(frame) = self.stack.iter_mut().find(rich)
            && let Some(dir) = &frame.dir
        {
            self.queue.give(Task {
                dir: Arc::clone(dir),
                entries: frame.subdirs.split(),
                part: Part::Subdirs,
            });
        }
    }
}

impl Frame {
    fn new(dir: Arc<Dir>, is_read: bool) -> Self {
        let place = Arc::clone(&dir.place);
        Self { place, dir: Some(dir), subdirs: Names::default(), position: 0, is_read }
    }

    /// Opens the directory again as the parent of `child`, if it still is that.
    fn open_through(&mut self, child: &Dir, mount: u64) -> Option<()> {
        let fd = inode::open_parent(&child.fd).ok()?;
        let stat = inode::Stat::of(&fd).ok()?;
        if stat.id != self.place.id || stat.mount != mount {
            return None;
        }
        if !self.is_read {
            rustix::fs::seek(&fd, SeekFrom::Start(self.position)).ok()?;
        }
        self.dir = Some(Arc::new(Dir { fd, place: Arc::clone(&self.place) }));
        Some(())
    }
}
