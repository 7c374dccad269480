//! What was chosen, kept beside the run's backups, so that a rollback that dies goes on as it was begun.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Conflict, Keep, Present};
use crate::system::files::{self, Ownership};

/// A choice for one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Where.
    pub path: PathBuf,
    /// SHA-256 of what was there when it was chosen: when it changes again, the choice does not hold any more.
    pub digest: String,
    /// Whose version stays.
    pub keep: Keep,
}

/// The choices of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choices {
    choices: Vec<Choice>,
}

impl Choices {
    /// The choices made so far for the run with these backups.
    ///
    /// # Errors
    /// When they are there and cannot be read.
    pub fn load(backups: &Path) -> Result<Self> {
        let path = file(backups);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            other => other.with_context(|| format!("cannot read {}", path.display()))?,
        };
        serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged: remove it, and choose again", path.display()))
    }

    /// Adds choices, durably.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn add(&mut self, backups: &Path, choices: Vec<Choice>) -> Result<()> {
        if choices.iter().all(|choice| self.choices.contains(choice)) {
            return Ok(());
        }
        for choice in choices {
            self.choices.retain(|other| (&other.path, &other.digest) != (&choice.path, &choice.digest));
            self.choices.push(choice);
        }
        let path = file(backups);
        let text = serde_json::to_vec_pretty(self).context("cannot write down what was chosen")?;
        files::replace(&path, &text, Ownership::root(0o600))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Whose version of `path` stays, when what is there is still what it was when that was chosen.
    pub(in super::super) fn of(&self, path: &Path, now: &Present) -> Option<Keep> {
        let digest = now.digest();
        self.choices
            .iter()
            .find(|choice| choice.path == path && choice.digest == digest)
            .map(|choice| choice.keep)
    }

    /// Whether there is a choice for this conflict.
    pub fn has(&self, conflict: &Conflict) -> bool {
        self.choices.iter().any(|choice| choice.path == conflict.path && choice.digest == conflict.digest)
    }
}

fn file(backups: &Path) -> PathBuf {
    backups.join("choices.json")
}
