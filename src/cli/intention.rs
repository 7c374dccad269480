//! What a removal was asked for, beside the journal while it is not carried out.
//!
//! A removal of what this tool did is several runs, and between them nothing is interrupted as far as the journal knows.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::args::{Status, UninstallArgs};
use super::machine::UNINSTALL;
use crate::journal::{Journal, Run, RunState};
use crate::platform::paths;
use crate::system::files::{self, Ownership};

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Intention {
    keep_store: bool,
    purge_homes: bool,
    /// The last run when it was asked for. What somebody did since, other than removing, is what is wanted now.
    after: i64,
}

impl Intention {
    /// What these arguments ask for now.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn of(args: &UninstallArgs, journal: &Journal) -> Result<Self> {
        let after = journal.runs()?.last().map_or(0, |run| run.id);
        Ok(Self { keep_store: args.keep_store, purge_homes: args.purge_homes, after })
    }

    /// The one that is neither carried out yet nor overtaken by what else was done.
    ///
    /// # Errors
    /// When it or the journal cannot be read.
    pub fn pending(journal: &Journal) -> Result<Option<Self>> {
        if Self::is_carried_out(journal)? {
            return Ok(None);
        }
        let runs = journal.runs()?;
        let is_pending = |intention: &Self| {
            let is_this_journal = runs.last().is_some_and(|run| run.id >= intention.after);
            let mut since = runs.iter().filter(|run| run.id > intention.after);
            is_this_journal && since.all(|run| run.plan_name == UNINSTALL && !has_ended(run))
        };
        Ok(Self::find()?.filter(is_pending))
    }

    /// Whether the last run removed Nix, also when it died before what lies beside the journal was gone.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn is_carried_out(journal: &Journal) -> Result<bool> {
        Ok(journal.runs()?.last().is_some_and(|run| run.plan_name == UNINSTALL && has_ended(run)))
    }

    /// Whether anything lies beside the journal.
    pub fn is_kept() -> bool {
        path().exists()
    }

    /// Nobody intends to any more, or it is done.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget() -> Result<()> {
        let path = path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done
                .and_then(|()| files::sync_parent(&path))
                .with_context(|| format!("cannot remove {}", path.display())),
        }
    }

    /// Keeps it beside the journal.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(self) -> Result<()> {
        let (path, text) = (path(), serde_json::to_vec(&self)?);
        files::replace(&path, &text, Ownership::root(0o600))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The arguments that ask for it.
    pub fn arguments(self) -> UninstallArgs {
        let Self { keep_store, purge_homes, .. } = self;
        UninstallArgs { dry_run: false, keep_store, purge_homes, status: Status::default() }
    }

    /// The command that asks for it.
    pub fn command(self) -> String {
        let words = [(self.keep_store, " --keep-store"), (self.purge_homes, " --purge-homes")];
        words
            .iter()
            .filter(|(is_wanted, _)| *is_wanted)
            .fold("nix-unroot uninstall".to_owned(), |command, (_, word)| command + word)
    }

    fn find() -> Result<Option<Self>> {
        let path = path();
        match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => serde_json::from_slice(&read.with_context(|| format!("cannot read {}", path.display()))?)
                .map(Some)
                .with_context(|| {
                    format!(
                        "{} is damaged: remove it; nix-unroot uninstall begins anew what it stood for",
                        path.display()
                    )
                }),
        }
    }
}

/// Whether it came to its end, and not back from there.
fn has_ended(run: &Run) -> bool {
    matches!(run.state, RunState::Applied | RunState::Final)
}

fn path() -> PathBuf {
    Path::new(paths::STATE_DIR).join("removal.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_asks_for_all_of_it() {
        let both = Intention { keep_store: true, purge_homes: true, after: 0 };
        assert_eq!(both.command(), "nix-unroot uninstall --keep-store --purge-homes");
        let neither = Intention { keep_store: false, purge_homes: false, after: 0 };
        assert_eq!(neither.command(), "nix-unroot uninstall");
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&dir.path().join("journal.sqlite")).unwrap();
        assert_eq!(Intention::of(&both.arguments(), &journal).unwrap(), both);
    }
}
