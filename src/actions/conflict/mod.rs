//! The world moved on: somebody changed what a step had made, and undoing it would lose what they did.
//!
//! What a step wrote, what stood there before and what is there now are compared byte for byte. Where now is ours, it
//! is undone; where now is what it was before, nothing is to do; where a part of a text is ours, only that part goes. The
//! rest are conflicts: all of them are found before the first step is undone, and each needs a choice.

mod choices;
mod placed;
mod present;

use std::path::{Path, PathBuf};

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use choices::{Choice, Choices};
pub(super) use placed::{ensure_untouched, put_aside, undecided, undo_owned, undo_placed};
pub(super) use present::{Present, Wrote, sha256};

use super::Host;
use super::file_state::FileState;

/// Whose version of a thing stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// What somebody else made of it since.
    Theirs,
    /// What undoing gives: the state before. What is there now is put aside in the run's backups.
    Ours,
}

/// A thing that undoing cannot decide about.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Conflict {
    /// Where.
    pub path: PathBuf,
    /// What happened to it, in words.
    pub reason: String,
    /// What stood there before the run.
    pub before: Version,
    /// What the run put there.
    pub ours: Version,
    /// What is there now.
    pub now: Version,
    /// SHA-256 of what is there now: a choice is for this alone.
    pub digest: String,
}

/// A thing as it was at some time.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Version {
    /// What it was, in words: `a file of 12 lines`.
    pub what: String,
    /// Its text, when it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Version {
    /// A version without a text.
    pub fn of(what: impl Into<String>) -> Self {
        Self { what: what.into(), text: None }
    }
}

impl Conflict {
    /// What was changed since the run wrote it, as a unified diff; empty when that is no question of text.
    pub fn diff(&self) -> Vec<String> {
        let (Some(ours), Some(now)) = (&self.ours.text, &self.now.text) else { return Vec::new() };
        let diff = similar::TextDiff::from_lines(ours.as_str(), now.as_str());
        let text = diff.unified_diff().context_radius(1).to_string();
        text.lines().map(str::to_owned).collect()
    }
}

/// Looks through the steps of a run, in their order, for what others changed.
#[derive(Debug)]
pub struct Scan<'a> {
    /// Where backups are.
    pub host: &'a Host<'a>,
    places: Vec<Place>,
    conflicts: Vec<Conflict>,
}

/// A path that steps wrote as a whole: the same path may be written more than once.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// What stood there before each step.
    before: Vec<Present>,
    wrote: Vec<Wrote>,
}

impl<'a> Scan<'a> {
    /// A scan that has seen nothing yet.
    pub fn new(host: &'a Host<'a>) -> Self {
        Self { host, places: Vec::new(), conflicts: Vec::new() }
    }

    /// A step put `wrote` to `path`, where `before` stood.
    pub(super) fn placed(&mut self, path: &Path, before: &FileState, wrote: Wrote) -> Result<()> {
        let before = Present::of(before, self.host)?;
        match self.places.iter_mut().find(|place| place.path == path) {
            Some(place) => {
                place.before.push(before);
                place.wrote.push(wrote);
            }
            None => {
                self.places.push(Place { path: path.to_owned(), before: vec![before], wrote: vec![wrote] })
            }
        }
        Ok(())
    }

    /// A step found a conflict by itself.
    pub(super) fn conflict(&mut self, conflict: Conflict) {
        self.conflicts.push(conflict);
    }

    /// What needs a choice, and the choices that follow from what was seen: a path that somebody gave back its first
    /// content stays as it is, also for the steps in between.
    ///
    /// # Errors
    /// When a path cannot be read.
    pub fn finish(self) -> Result<(Vec<Conflict>, Vec<Choice>)> {
        let (mut conflicts, mut choices) = (self.conflicts, Vec::new());
        for place in self.places {
            let now = Present::at(&place.path)?;
            let (Some(first), Some(last)) = (place.before.first(), place.wrote.last()) else { continue };
            if now == Present::Absent || place.wrote.iter().any(|wrote| wrote.is(&now)) {
                continue;
            }
            if now == *first {
                choices.push(Choice { path: place.path, digest: now.digest(), keep: Keep::Theirs });
            } else if !place.before.contains(&now) {
                conflicts.push(Conflict {
                    reason: "somebody else changed it since it was written".to_owned(),
                    before: first.version(),
                    ours: last.version(),
                    now: now.version(),
                    digest: now.digest(),
                    path: place.path,
                });
            }
        }
        Ok((conflicts, choices))
    }
}
