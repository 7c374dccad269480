//! What becomes of an inode, by its owner.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::inode::{self, Id, Stat};
use super::record::{self, Exception, Writer};
use super::{Outcome, ReownError, Rule, Unrecorded};
use crate::system::checkpoint;
use crate::types::SubidRange;

/// Exceptions that wait for one write; each holds a descriptor, and 1024 of those is what a process usually has.
const BATCH: usize = 256;
/// Bytes of text that wait for one write: the names of directories that a build user left may be as long as names can be, level upon level.
const BATCH_TEXT: usize = 1 << 20;
/// The longest path that is recorded. A build user may have made longer ones, which no store path needs.
pub const LONGEST_PATH: usize = 128 << 10;

/// Which way the tree changes hands.
#[derive(Debug)]
pub enum Policy<'a> {
    /// From root and the build users to `nix`.
    Reown { rule: &'a Rule, log: Mutex<Log> },
    /// Back.
    Restore { unrecorded: Unrecorded, owner: u32, extra: Option<SubidRange>, kept: HashMap<Id, (u32, u32)> },
    /// Neither: what would change hands is only named.
    Look { rule: &'a Rule },
}

/// What to do with an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Give it to this owner and group; a directory is walked.
    Take(u32, u32),
    /// It would be given away; a directory is walked.
    Name,
    /// It is where it belongs; a directory is walked.
    Keep,
    /// It is somebody else's; a directory is not walked.
    Leave,
}

/// Exceptions that are not on the disk yet, with the inodes that wait for that.
#[derive(Debug)]
pub struct Log {
    writer: Writer,
    waiting: Vec<(OwnedFd, Exception)>,
    /// How many bytes they take in the file, at most.
    text: usize,
}

impl Policy<'_> {
    /// Whether it takes a tree from a person.
    pub fn is_from_a_person(&self) -> bool {
        matches!(self, Policy::Reown { rule, .. } if rule.plain.is_a_persons())
    }

    /// Whether an inode of a person's tree would stay writable for others than its new owner. A link's mode means nothing.
    pub fn leaves_open(&self, stat: &Stat, path: impl FnOnce() -> Vec<u8>) -> bool {
        let Policy::Reown { rule, .. } = self else { return false };
        let may_be = || {
            let path = path();
            stat.kind() == FileType::Directory
                && rule.may_be_open.iter().any(|open| open.as_os_str().as_bytes() == path)
        };
        rule.plain.is_a_persons() && stat.mode & 0o022 != 0 && stat.kind() != FileType::Symlink && !may_be()
    }

    pub fn verdict(&self, stat: &Stat) -> Verdict {
        match self {
            Policy::Reown { rule, .. } if rule.from.contains(&stat.uid) => {
                Verdict::Take(rule.to_uid, rule.to_gid)
            }
            Policy::Look { rule } if rule.from.contains(&stat.uid) => Verdict::Name,
            Policy::Reown { rule, .. } | Policy::Look { rule } if stat.uid == rule.to_uid => Verdict::Keep,
            Policy::Reown { .. } | Policy::Look { .. } => Verdict::Leave,
            Policy::Restore { unrecorded, owner, extra, kept } => {
                let before = if kept.is_empty() { None } else { kept.get(&stat.id) };
                if stat.uid == *owner || extra.is_some_and(|range| range.contains(stat.uid)) {
                    match (before, unrecorded) {
                        (Some((uid, gid)), _) => Verdict::Take(*uid, *gid),
                        (None, Unrecorded::To(plain)) => Verdict::Take(plain.uid, plain.gid),
                        (None, Unrecorded::Stays) => Verdict::Keep,
                    }
                } else if stat.uid == 0 || before.is_some() || unrecorded.is_to(stat.uid) {
                    Verdict::Keep
                } else {
                    Verdict::Leave
                }
            }
        }
    }
}

impl Log {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { writer: Writer::open(path)?, waiting: Vec::new(), text: 0 })
    }

    pub fn is_full(&self) -> bool {
        self.waiting.len() >= BATCH || self.text >= BATCH_TEXT
    }

    pub fn push(&mut self, fd: OwnedFd, exception: Exception) {
        self.text += exception.most_text();
        self.waiting.push((fd, exception));
    }

    /// Writes what waits, syncs it, and only then lets `change` have the inodes.
    pub fn flush(
        &mut self,
        record: &Path,
        mut change: impl FnMut(OwnedFd, &Exception) -> Result<(), ReownError>,
    ) -> Result<(), ReownError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        self.writer
            .append(self.waiting.iter().map(|(_, exception)| exception))
            .map_err(|reason| ReownError::Record { path: record.to_owned(), reason })?;
        self.text = 0;
        checkpoint::inside("owners-recorded");
        self.waiting.drain(..).try_for_each(|(fd, exception)| change(fd, &exception))?;
        checkpoint::inside("owners-changed");
        Ok(())
    }
}

/// Gives recorded files their owners back, one after the other, and returns the recorded directories and multi-link files:
/// the walk, which knows when all names of an inode were met and must enter those directories, does them.
pub fn give_back(
    root: BorrowedFd<'_>,
    path: &Path,
    owner: u32,
    started: (i64, u32),
    cancel: &AtomicBool,
    outcome: &mut Outcome,
) -> io::Result<HashMap<Id, (u32, u32)>> {
    let mut kept = HashMap::new();
    record::read(path, |exception| {
        inode::check_cancel(cancel)?;
        let fd = match inode::pin_path(root, &exception.path) {
            Ok(fd) => fd,
            // Gone, replaced by a link, or mounted over: no longer what was recorded.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let stat = Stat::of(&fd)?;
        let before = (exception.uid, exception.gid);
        let is_back = (stat.uid, stat.gid) == before;
        if stat.uid != owner && !is_back {
            return Ok(());
        }
        if stat.kind() == FileType::Directory || stat.links > 1 {
            kept.insert(stat.id, before);
        } else if !is_back && stat.is_changed_since(started) {
            // Just now it was somewhere else, or had another name: the walk decides, as for an inode without exception.
            return Ok(());
        } else if !is_back {
            inode::change_owner(&fd, before)?;
            outcome.changed += 1;
        }
        outcome.exceptions += 1;
        give_special(&fd, &stat, &exception, cancel, outcome)
    })?;
    Ok(kept)
}

fn give_special(
    fd: &OwnedFd,
    stat: &Stat,
    exception: &Exception,
    cancel: &AtomicBool,
    outcome: &mut Outcome,
) -> io::Result<()> {
    let Some(special) = &exception.special else { return Ok(()) };
    // A multi-link file is still the other owner's here; and the record is of a regular file.
    let may_be_given = stat.kind() == FileType::RegularFile && stat.links == 1;
    if !may_be_given || !inode::give_special(fd.as_fd(), stat, exception.mode, special, cancel)? {
        outcome.special_modes.push(exception.path.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of control characters each takes three bytes. Before a batch was counted in bytes, one of 256 such paths was written, and then taken for torn.
    #[test]
    fn a_batch_of_long_paths_is_written_before_it_is_too_long_to_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("exceptions");
        let mut log = Log::open(&record).unwrap();
        let exception = |number: u8| {
            let path = [vec![1; LONGEST_PATH - 1], vec![number]].concat();
            Exception { path, uid: 1, gid: 1, mode: 0o600, special: None }
        };
        let mut changed = 0;
        for number in 1..=8 {
            log.push(std::fs::File::open("/").unwrap().into(), exception(number));
            assert!(log.waiting.len() <= 3 && log.is_full() == (log.waiting.len() == 3), "{number}");
            if log.is_full() || number == 8 {
                let change = |_, exception: &Exception| {
                    assert!(recorded(&record).contains(exception), "it changes before it is recorded");
                    changed += 1;
                    Ok(())
                };
                log.flush(&record, change).unwrap();
                assert!(!log.is_full());
            }
        }
        assert!(recorded(&record) == (1..=8).map(exception).collect::<Vec<_>>());
        assert_eq!(changed, 8);
    }

    fn recorded(path: &Path) -> Vec<Exception> {
        let mut all = Vec::new();
        let read = record::read(path, |found| {
            all.push(found);
            Ok(())
        });
        read.unwrap();
        all
    }
}
