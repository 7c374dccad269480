//! What a thread does with one entry of a directory.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::inode::{self, Stat};
use super::place::{Dir, Place};
use super::policy::{LONGEST_PATH, Policy, Verdict};
use super::record::Exception;
use super::walk::Pass;
use super::{Outcome, ReownError};

/// A thread's own part of a pass.
pub struct Visitor<'a> {
    pub pass: &'a Pass<'a>,
    pub outcome: Outcome,
}

impl<'a> Visitor<'a> {
    pub fn new(pass: &'a Pass<'a>) -> Self {
        Self { pass, outcome: Outcome::default() }
    }

    /// Deals with an entry that is no directory. True when it turns out to be one, which is for [`Self::enter`].
    pub fn visit(&mut self, dir: &Dir, name: &CStr) -> Result<bool, ReownError> {
        // Where only root can change names, a name is as good as a descriptor, and saves two system calls of four.
        let seen = if dir.place.sheltered {
            Stat::at(&dir.fd, name).map(|stat| (None, stat))
        } else {
            inode::pin(&dir.fd, name).and_then(|fd| Stat::of(&fd).map(|stat| (Some(fd), stat)))
        };
        let (fd, stat) = match seen {
            Ok(seen) => seen,
            Err(error) => return self.trouble(&dir.place, name.to_bytes(), error).map(|()| false),
        };
        if stat.mount != self.pass.mount {
            self.outcome.other_mounts.push(dir.place.join(name.to_bytes()));
            return Ok(false);
        }
        if stat.kind() == FileType::Directory {
            return Ok(true);
        }
        self.outcome.visited += 1;
        let verdict = self.pass.policy.verdict(&stat);
        self.note_open(dir, name, &stat, verdict);
        match verdict {
            Verdict::Keep => {}
            Verdict::Name => self.outcome.strays.push(dir.place.join(name.to_bytes())),
            Verdict::Leave => self.outcome.left_alone += 1,
            Verdict::Take(uid, gid) => {
                if self.is_ours_alone(dir, name, &stat) {
                    self.take_entry(dir, name, fd, &stat, (uid, gid))?;
                }
            }
        }
        Ok(false)
    }

    /// Opens a subdirectory and takes it. `None` when it is not to be walked.
    pub fn enter(&mut self, dir: &Dir, name: &CStr) -> Result<Option<Dir>, ReownError> {
        let opened = inode::open_dir(&dir.fd, name).and_then(|fd| Stat::of(&fd).map(|stat| (fd, stat)));
        let (fd, stat) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.trouble(&dir.place, name.to_bytes(), error).map(|()| None),
        };
        self.outcome.visited += 1;
        let verdict = self.pass.policy.verdict(&stat);
        if verdict == Verdict::Leave {
            self.outcome.left_alone += 1;
            self.outcome.closed_dirs.push(dir.place.join(name.to_bytes()));
            return Ok(None);
        }
        self.note_open(dir, name, &stat, verdict);
        let mut place = Place::new(Some(&dir.place), name.to_bytes(), &stat);
        // Nor does anything below it change hands: the way back would not enter it.
        let is_taken =
            matches!(verdict, Verdict::Take(..)) && matches!(self.pass.policy, Policy::Reown { .. });
        if is_taken && place.length > LONGEST_PATH && !self.is_plain(&stat) {
            self.outcome.too_long.push_beginning(place.join(b""));
            return Ok(None);
        }
        place.tainted = dir.place.tainted || self.is_fresh(&stat);
        self.shelter(&mut place, &fd, &stat, verdict)?;
        Ok(Some(Dir { fd, place: Arc::new(place) }))
    }

    /// Changes a directory's owner when that serves what is in it: the unprivileged owner loses it before its entries
    /// are looked at, and gets it after they were.
    pub fn shelter(
        &mut self,
        place: &mut Place,
        fd: &OwnedFd,
        stat: &Stat,
        verdict: Verdict,
    ) -> Result<(), ReownError> {
        let owner = match verdict {
            Verdict::Take(..) if matches!(self.pass.policy, Policy::Reown { .. }) => {
                place.late = Some(*stat);
                stat.uid
            }
            Verdict::Take(uid, gid) => {
                self.change(inode::change_owner(fd, (uid, gid)), || place.join(b""))?;
                uid
            }
            Verdict::Name => {
                self.outcome.strays.push(place.join(b""));
                stat.uid
            }
            Verdict::Keep | Verdict::Leave => stat.uid,
        };
        place.sheltered = inode::MODE_TELLS_ALL && owner == 0 && stat.mode & 0o022 == 0;
        Ok(())
    }

    /// A list of a directory's entries is dealt with. After the last one the directory itself changes hands.
    pub fn end_list(&mut self, dir: &Dir) -> Result<(), ReownError> {
        let is_last = dir.place.unread.fetch_sub(1, Ordering::AcqRel) == 1;
        match (&dir.place.late, self.pass.policy) {
            (Some(stat), Policy::Reown { rule, .. }) if is_last => {
                self.take(dir.fd.as_fd(), stat, (rule.to_uid, rule.to_gid), || dir.place.join(b""))
            }
            _ => Ok(()),
        }
    }

    /// Changes an entry's owner: by its name when nothing has to be recorded and nothing can be swapped.
    fn take_entry(
        &mut self,
        dir: &Dir,
        name: &CStr,
        fd: Option<OwnedFd>,
        stat: &Stat,
        owner: (u32, u32),
    ) -> Result<(), ReownError> {
        let path = || dir.place.join(name.to_bytes());
        if let Some(fd) = fd {
            return self.take(fd.as_fd(), stat, owner, path);
        }
        let is_restored = matches!(self.pass.policy, Policy::Restore { .. });
        let is_plain = match is_restored {
            true => Ok(true),
            false if !self.is_plain(stat) => Ok(false),
            false => inode::is_special_at(&dir.fd, name, stat).map(|special| !special),
        };
        // Only root can change this directory, but root may be at work in it: a name that is gone is no reason to stop.
        let gone = |error: &std::io::Error| Errno::from_io_error(error).filter(|errno| is_gone(*errno));
        match is_plain {
            Ok(true) => match inode::change_owner_at(&dir.fd, name, owner) {
                Err(errno) if is_gone(errno) => self.trouble(&dir.place, name.to_bytes(), errno),
                result => self.change(result, path),
            },
            Ok(false) => match inode::pin(&dir.fd, name) {
                Ok(fd) => self.take(fd.as_fd(), stat, owner, path),
                Err(errno) => self.trouble(&dir.place, name.to_bytes(), errno),
            },
            Err(error) => match gone(&error) {
                Some(errno) => self.trouble(&dir.place, name.to_bytes(), errno),
                None => Err(self.fatal(&path(), error)),
            },
        }
    }

    /// Changes an inode's owner, now or, when it has to be recorded, with its batch.
    pub fn take(
        &mut self,
        fd: BorrowedFd<'_>,
        stat: &Stat,
        owner: (u32, u32),
        path: impl Fn() -> Vec<u8>,
    ) -> Result<(), ReownError> {
        let Policy::Reown { log, .. } = self.pass.policy else {
            return self.change(inode::change_owner(fd, owner), path);
        };
        let special =
            inode::special(fd, stat, self.pass.cancel).map_err(|error| match self.check_cancel() {
                Err(cancelled) => cancelled,
                Ok(()) => self.fatal(&path(), error),
            })?;
        if special.is_none() && self.is_plain(stat) {
            return self.change(inode::change_owner(fd, owner), path);
        }
        let path = path();
        if path.len() > LONGEST_PATH {
            self.outcome.too_long.push_beginning(path);
            return Ok(());
        }
        let fd = fd.try_clone_to_owned().map_err(|error| self.fatal(&path, error))?;
        if special.is_some() {
            self.outcome.special_modes.push(path.clone());
        }
        self.outcome.exceptions += 1;
        let (uid, gid, mode) = (stat.uid, stat.gid, stat.permissions());
        let is_full = {
            let mut log = log.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            log.push(fd, Exception { path, uid, gid, mode, special });
            log.is_full()
        };
        if is_full { self.flush() } else { Ok(()) }
    }

    /// Notes what would stay writable for others than its new owner.
    fn note_open(&mut self, dir: &Dir, name: &CStr, stat: &Stat, verdict: Verdict) {
        let path = || dir.place.join(name.to_bytes());
        if verdict != Verdict::Leave && self.pass.policy.leaves_open(stat, path) {
            self.outcome.open.push(path());
        }
    }

    /// Whether an inode's owner needs no record.
    fn is_plain(&self, stat: &Stat) -> bool {
        matches!(self.pass.policy, Policy::Reown { rule, .. } if !rule.record_all && rule.plain.owns(stat))
    }

    /// Puts the exceptions that wait on the disk, then changes their inodes.
    pub fn flush(&mut self) -> Result<(), ReownError> {
        let Policy::Reown { rule, log } = self.pass.policy else { return Ok(()) };
        let mut log = log.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        log.flush(self.pass.record, |fd, exception| {
            let result = inode::change_owner(fd, (rule.to_uid, rule.to_gid));
            self.change(result, || exception.path.clone())
        })
    }

    /// Ends the pass when the caller wants that.
    pub fn check_cancel(&self) -> Result<(), ReownError> {
        #[cfg(test)]
        if self.pass.progress.stop_after.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return Err(ReownError::Cancelled);
        }
        if self.pass.cancel.load(Ordering::Relaxed) { Err(ReownError::Cancelled) } else { Ok(()) }
    }

    /// Whether the caller wants this entry, and what is below it, left alone.
    pub fn is_skipped(&self, place: &Place, name: &[u8]) -> bool {
        let is_this = |skip: &std::path::PathBuf| {
            skip.file_name().is_some_and(|last| last.as_bytes() == name)
                && skip.as_os_str().as_bytes() == place.join(name)
        };
        self.pass.tree.skip.iter().any(is_this)
    }

    /// Adds to the counters that the caller watches what came since.
    pub fn count_progress(&self, visited: u64, changed: u64) {
        self.pass.progress.visited.fetch_add(self.outcome.visited - visited, Ordering::Relaxed);
        self.pass.progress.changed.fetch_add(self.outcome.changed - changed, Ordering::Relaxed);
    }

    /// Sorts out an error at an entry: a mount or a change under our hands is noted, all else ends the pass.
    pub fn trouble(&mut self, place: &Place, name: &[u8], error: Errno) -> Result<(), ReownError> {
        match error {
            Errno::XDEV => self.outcome.other_mounts.push(place.join(name)),
            // On macOS, of a socket or device, which no store path holds.
            Errno::OPNOTSUPP => self.outcome.refused.push(place.join(name)),
            // It was there a moment ago. Gone is gone; but it may as well have been moved to where we have been.
            error if is_gone(error) => self.outcome.unsettled.push(place.join(name)),
            _ => return Err(self.fatal(&place.join(name), error.into())),
        }
        Ok(())
    }

    /// Whether all names of an inode are in the tree, so that no file outside changes with it.
    ///
    /// An inode with one name may have had two when that name was looked up, and the one in the tree may be gone: whoever can
    /// write to the directory and link to a foreign file (`fs.protected_hardlinks=0`) can do that. Making, removing or
    /// renaming a name sets the inode's ctime, so an inode whose ctime is older than the pass has the names it had.
    /// The same makes sure that no name is counted twice; moving a directory sets that directory's.
    fn is_ours_alone(&mut self, dir: &Dir, name: &CStr, stat: &Stat) -> bool {
        if stat.links == 1 && dir.place.sheltered {
            return true;
        }
        if self.is_fresh(stat) || (stat.links > 1 && dir.place.tainted) {
            self.outcome.unsettled.push(dir.place.join(name.to_bytes()));
            return false;
        }
        if stat.links <= 1 || self.pass.links.met_all(stat.id, stat.links) {
            return true;
        }
        if self.pass.foreign.contains(&stat.id) {
            self.outcome.foreign_links.push(dir.place.join(name.to_bytes()));
        }
        false
    }

    fn is_fresh(&self, stat: &Stat) -> bool {
        stat.is_changed_since(self.pass.started)
    }

    fn change(
        &mut self,
        result: rustix::io::Result<()>,
        path: impl Fn() -> Vec<u8>,
    ) -> Result<(), ReownError> {
        match result {
            Ok(()) => self.outcome.changed += 1,
            // Immutable or append-only (chattr(1)): the only ones that refuse root.
            Err(Errno::PERM) => self.outcome.refused.push(path()),
            Err(error) => return Err(self.fatal(&path(), error.into())),
        }
        Ok(())
    }

    fn fatal(&self, path: &[u8], reason: std::io::Error) -> ReownError {
        ReownError::Entry { path: self.pass.tree.root.join(std::ffi::OsStr::from_bytes(path)), reason }
    }
}

/// What the system says of a name that leads elsewhere, or nowhere, than a moment ago.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::AGAIN)
}
