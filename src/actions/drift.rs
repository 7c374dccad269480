//! Drift: what is not any more as a step left it, long after its run ended.
//!
//! Each action tells it from the same words that it does and undoes things with ([`super::Act::look_for_drift`]), so there is no second list of
//! files. What to do about it is a step again: recorded, and undone like any other.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::conflict::{Conflict, Present, Wrote};
use super::file_state::FileState;
use super::{Action, Host};
use crate::system::files::Ownership;

/// What of a thing is looked at. Of the steps that decide about the same aspect of the same path, the last one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// That it is there, and what it holds.
    Content,
    /// Owner, group and mode.
    Owner,
    /// Whose the things in it are, all the way down.
    Below,
    /// Whether a unit runs.
    Runs,
}

/// What can be done about a drift.
#[derive(Clone, Debug, PartialEq)]
pub enum Repair {
    /// The step is done again.
    Again,
    /// Another action.
    By(Box<Action>),
    /// Gate and scanner are started again.
    Restart,
    /// Nothing that is safe to do unasked; what a person can do, in words.
    Never(String),
    /// Nothing: somebody may well want it so, and should know of it.
    Notice(String),
}

/// One thing that is not as a step left it.
#[derive(Clone, Debug, PartialEq)]
pub struct Drift {
    /// Where; a unit or an account by its name.
    pub path: PathBuf,
    /// What of it.
    pub aspect: Aspect,
    /// What is there now, in words.
    pub found: String,
    /// What can be done.
    pub repair: Repair,
    /// When repairing would write over what somebody made of it.
    pub conflict: Option<Conflict>,
}

impl Drift {
    /// One without a conflict.
    pub fn new(path: &Path, aspect: Aspect, found: impl Into<String>, repair: Repair) -> Self {
        Self { path: path.to_owned(), aspect, found: found.into(), repair, conflict: None }
    }
}

/// The drift of a path that a step wrote as a whole. `before` is what it found there; `None` when it found its own.
///
/// # Errors
/// When what is there cannot be read.
pub fn of_placed(
    path: &Path,
    before: Option<&FileState>,
    wrote: &Wrote,
    host: &Host<'_>,
) -> Result<Option<Drift>> {
    let now = Present::at(path)?;
    if wrote.is(&now) {
        return Ok(None);
    }
    let drift = |found: String, repair| Ok(Some(Drift::new(path, Aspect::Content, found, repair)));
    if now == Present::Absent {
        return drift("it is gone".to_owned(), Repair::Again);
    }
    let before = before.map(|before| Present::of(before, host)).transpose()?;
    if before.as_ref() == Some(&now) {
        return drift(format!("what stood there before is back: {}", now.version().what), Repair::Again);
    }
    if matches!(now, Present::Directory | Present::Special) {
        let found = format!("in its place there is {}", now.version().what);
        return drift(found, Repair::Never("move it away, and look again".to_owned()));
    }
    let conflict = Conflict {
        path: path.to_owned(),
        reason: "somebody else changed it since it was written".to_owned(),
        before: before.unwrap_or(Present::Absent).version(),
        ours: wrote.version(),
        now: now.version(),
        digest: now.digest(),
    };
    let found = format!("somebody changed it: it is now {}", now.version().what);
    Ok(Some(Drift { conflict: Some(conflict), ..Drift::new(path, Aspect::Content, found, Repair::Again) }))
}

/// The drift of owner, group and mode of a file that is otherwise as a step left it; the step sets them when it is done again.
///
/// # Errors
/// When it cannot be looked at.
pub fn of_owner(path: &Path, wanted: Ownership) -> Result<Vec<Drift>> {
    let metadata =
        fs::symlink_metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
    let now = Ownership::of(&metadata);
    Ok(match now == wanted {
        true => Vec::new(),
        false => vec![Drift::new(path, Aspect::Owner, belongs(now, wanted), Repair::Again)],
    })
}

/// Whose it is, and whose it should be, in words.
pub fn belongs(now: Ownership, wanted: Ownership) -> String {
    let words = |owner: Ownership| {
        let user = users::get_user_by_uid(owner.uid)
            .map_or_else(|| owner.uid.to_string(), |user| user.name().to_string_lossy().into_owned());
        let group = users::get_group_by_gid(owner.gid)
            .map_or_else(|| owner.gid.to_string(), |group| group.name().to_string_lossy().into_owned());
        format!("{user}:{group} {:04o}", owner.mode)
    };
    format!("it is {}, not {}", words(now), words(wanted))
}
