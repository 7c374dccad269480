//! Gives a tree from root to an unprivileged user, and back.
//!
//! Both directions may be stopped at any instant, by a signal or a power cut, and finish when run again. Both hold against
//! a hostile owner of parts of the tree who changes it during the walk: no path is resolved twice, no symbolic link is
//! followed, no mount is crossed, nothing but directories is opened, and an inode is changed through the
//! descriptor by which it was checked.
//!
//! What such an owner *can* do is to move an inode into the tree, from a directory of the same file system that he
//! can write to. That is his right, and the tree's new owner gets it.

mod inode;
mod links;
mod listing;
mod place;
mod policy;
mod queue;
mod record;
#[cfg(test)]
mod tests;
mod visit;
mod walk;

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::inode::{Id, Stat};
use self::place::{Dir, Place};
use self::policy::{Log, Policy, Verdict};
use self::visit::Visitor;
use self::walk::Pass;
use crate::system::{kernel, text};
use crate::types::SubidRange;

/// A tree on one mount.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Its topmost directory. The way to it must be root's; the last component may not be a symbolic link.
    pub root: PathBuf,
    /// Paths relative to `root`, as they are named in the tree, that are left alone with all that is below them.
    pub skip: Vec<PathBuf>,
    /// Whether `root` itself changes hands too.
    pub include_root: bool,
}

/// Owner and group that most of a tree has: what belongs to them is not recorded one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plain {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Plain {
    /// Of a tree that root made.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };

    /// Whether the tree was a person's, who may have prepared it.
    fn is_a_persons(self) -> bool {
        self.uid != 0
    }

    fn owns(self, stat: &Stat) -> bool {
        (stat.uid, stat.gid) == (self.uid, self.gid)
    }
}

/// Who loses, who gets.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Whose most of it is; `uid` is in `from`.
    pub plain: Plain,
    /// Directories, relative to the root, that everybody may be able to write to although a person owned the tree: their
    /// new owner sees to them.
    pub may_be_open: Vec<PathBuf>,
    /// The uids whose inodes are re-owned: root's and the build users', and the person's who owned the tree.
    pub from: Vec<u32>,
    /// The new owner; not in `from`.
    pub to_uid: u32,
    /// The new group.
    pub to_gid: u32,
    /// Writes down every inode that changes hands, not only those that were not root:root: then [`restore`] can give back just these.
    pub record_all: bool,
}

/// Counters to watch from another thread. They grow over all passes, and so may pass the number of inodes.
#[derive(Debug)]
#[cfg_attr(not(test), derive(Default))]
pub struct Progress {
    /// Directory entries looked at.
    pub visited: AtomicU64,
    /// Inodes changed.
    pub changed: AtomicU64,
    /// Entries after which a test stops the walk.
    #[cfg(test)]
    stop_after: std::sync::atomic::AtomicI64,
}

/// What was seen and done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "inodes may have been left as they were"]
pub struct Outcome {
    /// Directory entries looked at in the last pass; directories that are not walked count, what is in them does not.
    pub visited: u64,
    /// Inodes whose owner was changed.
    pub changed: u64,
    /// Inodes that were recorded before the change, or given back from the record.
    pub exceptions: u64,
    /// Entries of other owners, which stay theirs.
    pub left_alone: u64,
    /// Directories of other owners, which were not entered.
    pub closed_dirs: Listed,
    /// Names of inodes that have more names outside the tree, or in a part of it that is not walked; not changed.
    pub foreign_links: Listed,
    /// Mount points; neither they nor what is below them was changed.
    pub other_mounts: Listed,
    /// `reown`: files that lost set-uid, set-gid or capabilities, as chown(2) takes them. `restore`: those that did not get
    /// them back because they are not the same bytes any more, have several names, or are too large to be compared.
    pub special_modes: Listed,
    /// Inodes that are immutable (`chattr +i`) or append-only (`+a`); not changed.
    pub refused: Listed,
    /// Entries with paths too long to be recorded; neither they nor what is below them was changed. The beginnings of the paths.
    pub too_long: Listed,
    /// Entries that somebody kept changing, pass after pass; not changed.
    pub unsettled: Listed,
    /// Of a person's tree: what others than its owner may write to, by its mode (which also shows an access control list,
    /// acl(5)). It would stay theirs to write to whoever owns it.
    pub open: Listed,
    /// [`strays`]: what would change hands.
    pub strays: Listed,
    /// How long the disk took at the end, to have it all.
    pub synced_in: Duration,
}

/// Paths, relative to the root of the tree: how many, and the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// How many there are.
    pub count: u64,
    /// The first ones, at most [`Listed::MOST`]; very long paths are only counted.
    pub paths: Vec<PathBuf>,
}

/// Why the tree did not change hands, or not all of it. Running again goes on where this stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReownError {
    /// The rule gives to an owner that it takes from, or takes from nobody.
    #[error(
        "owners {from:?} to owner {to}: nobody may be on both sides, and there must be somebody to take from"
    )]
    Rule {
        /// The rule's `from`.
        from: Vec<u32>,
        /// The rule's `to_uid`.
        to: u32,
    },
    /// The root of the tree cannot be opened.
    #[error(
        "cannot open the tree {}: {reason}; it must be a directory, not a link to one, and root must run this",
        text::path(path)
    )]
    Root {
        /// The root.
        path: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
    /// The exceptions file cannot be read or written. What it does not hold was not changed.
    #[error(
        "cannot use the exceptions file {}: {reason}; make room or put it back from a backup, then run again",
        text::path(path)
    )]
    Record {
        /// The exceptions file.
        path: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
    /// An entry cannot be read or changed for a reason that concerns the file system, not the entry.
    #[error(
        "cannot change the owner of {}: {reason}; mend the file system, then run again",
        text::path(path)
    )]
    Entry {
        /// The entry.
        path: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
    /// The caller asked to stop.
    #[error("stopped before the end; run again to go on")]
    Cancelled,
}

/// Passes over the tree after which entries that still change are given up.
const PASSES: u32 = 4;

/// Gives what `rule.from` owns below the tree's root to `rule.to_uid`:`rule.to_gid`. What was not root:root, or loses more than
/// its owner by it, is in the exceptions file `record`, on the disk, before it changes; the file is made if it is not there,
/// and kept and added to if it is. On return all changes are on the disk.
///
/// # Errors
/// See [`ReownError`]. Entries that were left as they were for a reason of their own are no error: see [`Outcome`].
pub fn reown(
    tree: &Tree,
    rule: &Rule,
    record: &Path,
    progress: &Progress,
    cancel: &AtomicBool,
) -> Result<Outcome, ReownError> {
    if !rule.from.contains(&rule.plain.uid) || rule.from.contains(&rule.to_uid) {
        return Err(ReownError::Rule { from: rule.from.clone(), to: rule.to_uid });
    }
    let log = Log::open(record).map_err(|reason| ReownError::Record { path: record.to_owned(), reason })?;
    let policy = Policy::Reown { rule, log: Mutex::new(log) };
    walk_until_settled(&Job { tree, policy: &policy, record, progress, cancel })
}

/// What [`reown`] would give to the rule's new owner. One pass; changes nothing.
///
/// # Errors
/// See [`ReownError`].
pub fn strays(tree: &Tree, rule: &Rule, cancel: &AtomicBool) -> Result<Listed, ReownError> {
    let (policy, progress) = (Policy::Look { rule }, Progress::default());
    let job = Job { tree, policy: &policy, record: Path::new(""), progress: &progress, cancel };
    Ok(one_pass(&job, start(Duration::ZERO), HashSet::new())?.0.strays)
}

/// What [`restore`] does with what the owner owns and the record does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unrecorded {
    /// It goes to whom most of the tree belonged.
    To(Plain),
    /// It stays: the tree was the owner's before, and the record is of a rule with `record_all`.
    Stays,
}

impl Unrecorded {
    fn is_to(self, uid: u32) -> bool {
        matches!(self, Self::To(plain) if plain.uid == uid)
    }
}

/// Undoes [`reown`]: what `owner_now` owns, and what a build left with an owner in `extra_owned`, goes back as `record` says, or
/// else as `unrecorded` says. What others own stays. On return all changes are on the disk.
///
/// A file gets set-uid, set-gid and capabilities back only if it has the bytes that it had. A process that still has it open
/// for writing could change them afterwards: end `owner_now`'s processes first.
///
/// # Errors
/// See [`ReownError`]; a missing `record` is one.
pub fn restore(
    tree: &Tree,
    unrecorded: Unrecorded,
    record: &Path,
    owner_now: u32,
    extra_owned: Option<SubidRange>,
    progress: &Progress,
    cancel: &AtomicBool,
) -> Result<Outcome, ReownError> {
    if owner_now == 0 {
        return Err(ReownError::Rule { from: vec![0], to: 0 });
    }
    let root = open_root(tree)?;
    let mut given = Outcome::default();
    let started = start(Duration::from_millis(20));
    let kept = policy::give_back(root.fd.as_fd(), record, owner_now, started, cancel, &mut given).map_err(
        |reason| match cancel.load(Ordering::Relaxed) {
            true => ReownError::Cancelled,
            false => ReownError::Record { path: record.to_owned(), reason },
        },
    )?;
    let policy = Policy::Restore { unrecorded, owner: owner_now, extra: extra_owned, kept };
    let mut outcome = walk_until_settled(&Job { tree, policy: &policy, record, progress, cancel })?;
    outcome.changed += given.changed;
    outcome.exceptions += given.exceptions;
    outcome.special_modes.add(given.special_modes);
    Ok(outcome)
}

struct Job<'a> {
    tree: &'a Tree,
    policy: &'a Policy<'a>,
    record: &'a Path,
    progress: &'a Progress,
    cancel: &'a AtomicBool,
}

/// Walks again while somebody changes the tree under the walk, and once more to name what has names outside: the count of
/// names is complete only when the walk is.
fn walk_until_settled(job: &Job<'_>) -> Result<Outcome, ReownError> {
    let mut total = Outcome::default();
    let mut foreign = HashSet::new();
    for pass in 1..=PASSES {
        // A file system may keep whole seconds only: the last passes wait one out.
        let pause = if pass <= 2 { Duration::from_millis(20) } else { Duration::from_millis(1100) };
        let is_named = !foreign.is_empty();
        let (outcome, incomplete) = one_pass(job, start(pause), foreign)?;
        // A person may put something new into a directory until it is taken from them: the pass that changes nothing is the last.
        let is_still = !job.policy.is_from_a_person() || outcome.changed == 0;
        let is_settled = outcome.unsettled.count == 0 && is_still;
        total.follow(outcome);
        if is_settled && (is_named || incomplete.is_empty()) {
            break;
        }
        if pass == PASSES && !is_still {
            total.unsettled.push(b".".to_vec());
        }
        foreign = incomplete;
    }
    let root = open_root(job.tree)?;
    let walked = Instant::now();
    kernel::sync_file_system(&root.fd)
        .map_err(|reason| ReownError::Entry { path: job.tree.root.clone(), reason })?;
    total.synced_in = walked.elapsed();
    Ok(total)
}

fn one_pass(
    job: &Job<'_>,
    started: (i64, u32),
    foreign: HashSet<Id>,
) -> Result<(Outcome, HashSet<Id>), ReownError> {
    let Job { tree, policy, record, progress, cancel } = *job;
    let Root { fd, stat } = open_root(tree)?;
    let pass = Pass {
        tree,
        policy,
        record,
        mount: stat.mount,
        started,
        links: links::Links::default(),
        foreign,
        progress,
        cancel,
    };
    let mut visitor = Visitor::new(&pass);
    // Never tainted: it is opened by the caller's path, and met once.
    let mut place = Place::new(None, b"", &stat);
    let verdict = if tree.include_root { policy.verdict(&stat) } else { Verdict::Leave };
    visitor.shelter(&mut place, &fd, &stat, verdict)?;
    let outcome = visitor.outcome;
    let (mut walked, incomplete) = walk::run(pass, Arc::new(Dir { fd, place: Arc::new(place) }))?;
    walked.add(outcome);
    Ok((walked, incomplete))
}

struct Root {
    fd: std::os::fd::OwnedFd,
    stat: Stat,
}

fn open_root(tree: &Tree) -> Result<Root, ReownError> {
    inode::open_root(&tree.root)
        .and_then(|fd| Stat::of(&fd).map(|stat| Root { fd, stat }))
        .map_err(|error| ReownError::Root { path: tree.root.clone(), reason: error.into() })
}

/// Waits, so that what was changed before is older than the moment that it returns: the one on the coarse clock that stamps
/// inodes, whose tick is at most 10 ms.
fn start(pause: Duration) -> (i64, u32) {
    std::thread::sleep(pause);
    inode::stamping_clock()
}

impl Listed {
    /// Most paths that are kept.
    pub const MOST: usize = 64;
    const LONGEST: usize = 16 << 10;
    /// How much is kept of those that are cut.
    const BEGINNING: usize = 1 << 10;

    fn push(&mut self, path: Vec<u8>) {
        self.count += 1;
        if self.paths.len() < Self::MOST && path.len() <= Self::LONGEST {
            self.paths.push(OsString::from_vec(path).into());
        }
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.paths.extend(other.paths);
        self.paths.truncate(Self::MOST);
    }

    /// For a very long path: its first directories stand for it, once for all that are below them.
    fn push_beginning(&mut self, mut path: Vec<u8>) {
        let end = path.iter().take(Self::BEGINNING).rposition(|&byte| byte == b'/').unwrap_or(path.len());
        path.truncate(end);
        let path = PathBuf::from(OsString::from_vec(path));
        self.count += 1;
        if self.paths.len() < Self::MOST && !self.paths.contains(&path) {
            self.paths.push(path);
        }
    }
}

impl Outcome {
    /// Whether every inode that should have changed hands did.
    pub fn is_complete(&self) -> bool {
        [&self.foreign_links, &self.refused, &self.too_long, &self.unsettled, &self.open]
            .iter()
            .all(|listed| listed.count == 0)
    }

    /// Takes in what another thread of the same pass did.
    fn add(&mut self, other: Self) {
        self.visited += other.visited;
        self.changed += other.changed;
        self.exceptions += other.exceptions;
        self.left_alone += other.left_alone;
        self.closed_dirs.add(other.closed_dirs);
        self.foreign_links.add(other.foreign_links);
        self.other_mounts.add(other.other_mounts);
        self.special_modes.add(other.special_modes);
        self.refused.add(other.refused);
        self.too_long.add(other.too_long);
        self.unsettled.add(other.unsettled);
        self.open.add(other.open);
        self.strays.add(other.strays);
    }

    /// Takes in the next pass: what was done adds up, what was seen is as seen last.
    fn follow(&mut self, next: Self) {
        let before = std::mem::replace(self, next);
        self.changed += before.changed;
        self.exceptions += before.exceptions;
        let special = std::mem::take(&mut self.special_modes);
        self.special_modes = before.special_modes;
        self.special_modes.add(special);
    }
}
