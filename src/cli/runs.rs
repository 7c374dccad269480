//! Beginning, resuming and rolling back runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::exit::Exit;
use super::progress::Progress;
use super::{Session, require_root};
use crate::engine::{self, Ending, Engine};
use crate::journal::{self, Journal, Lock, LockError, Run, RunState};
use crate::plan::Plan;
use crate::platform::paths;

/// The document of a run with `--json`.
#[derive(Serialize)]
pub struct RunDocument {
    version: u32,
    run: Option<i64>,
    outcome: &'static str,
}

impl RunDocument {
    /// There was nothing to do.
    pub fn nothing() -> Self {
        Self { version: 1, run: None, outcome: "nothing-to-do" }
    }
}

/// A journal and the lock on it.
pub struct Runner {
    journal: Journal,
    _lock: Lock,
}

impl Runner {
    /// Opens the journal and takes the lock; an exit status when another run holds it.
    ///
    /// # Errors
    /// When the journal or the lock cannot be made.
    pub fn begin(session: &Session) -> Result<std::result::Result<Self, Exit>> {
        let path = Path::new(paths::JOURNAL);
        match Lock::take(path) {
            Ok(lock) => Ok(Ok(Self { journal: Journal::open(path)?, _lock: lock })),
            Err(error @ LockError::Held(_)) => {
                session.output.error(&error.into());
                Ok(Err(Exit::Blocked))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Runs a plan, and says how it ended.
    ///
    /// # Errors
    /// When the run cannot be recorded; then nothing was changed.
    pub fn apply(mut self, session: &Session, plan: &Plan, keep_partial: bool) -> Result<Exit> {
        let run = engine::begin(&mut self.journal, &backups(), plan)?;
        self.drive(session, keep_partial, |engine| engine.apply(run, plan))
    }

    fn drive(
        mut self,
        session: &Session,
        keep_partial: bool,
        work: impl FnOnce(&mut Engine<'_>) -> Result<Ending>,
    ) -> Result<Exit> {
        let cancelled = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&cancelled))
                .context("cannot watch for signals")?;
        }
        let progress = Progress::new(session.output.verbose);
        let mut engine = Engine {
            journal: &mut self.journal,
            backups: backups(),
            observer: &progress,
            cancelled: &cancelled,
            keep_partial,
        };
        let ended = work(&mut engine);
        drop(progress);
        let run = self.journal.runs().ok().and_then(|runs| Some(runs.last()?.id));
        let (exit, outcome) = match ended {
            Ok(ending) => tell(session, &ending),
            Err(error) => {
                session.output.error(&error.context("the run was stopped where it was"));
                tell(session, &Ending::Stuck)
            }
        };
        // The run is what it is, also when nobody reads of it.
        let _ = session.output.document(&RunDocument { version: 1, run, outcome });
        Ok(exit)
    }
}

fn backups() -> PathBuf {
    Path::new(paths::STATE_DIR).join("backups")
}

fn tell(session: &Session, ending: &Ending) -> (Exit, &'static str) {
    let (exit, outcome, text) = match ending {
        Ending::Applied => (
            Exit::Done,
            "applied",
            "done: Nix runs unprivileged; nix-unroot rollback gives back the state before",
        ),
        Ending::Undone => (Exit::Done, "undone", "done: everything is as it was before"),
        Ending::FailedAndUndone => {
            (Exit::Failed, "failed-and-undone", "failed; what had been done is undone")
        }
        Ending::Stuck => (
            Exit::Stuck,
            "stuck",
            "not fully undone: see the error above; when its cause is gone, nix-unroot rollback goes back, \
             nix-unroot resume goes on, and nix-unroot history shows where it stands",
        ),
    };
    session.output.message(text);
    (exit, outcome)
}

/// `resume`.
pub fn resume(session: &Session) -> Result<Exit> {
    require_root("resuming a run")?;
    with_current(
        session,
        "there is no interrupted run: nothing to do",
        |run| {
            (!matches!(run.state, RunState::Applied | RunState::Undone)).then(|| match run.state {
                RunState::Undoing => {
                    format!("Go on undoing run {} ({}, begun {})?", run.id, run.plan_name, run.started)
                }
                _ => format!("Go on with run {} ({}, begun {})?", run.id, run.plan_name, run.started),
            })
        },
        |engine, run| engine.resume(run),
    )
}

/// `rollback`.
pub fn rollback(session: &Session, from_copy: bool) -> Result<Exit> {
    require_root("rolling back")?;
    if from_copy && !restored(session)? {
        return Ok(Exit::Blocked);
    }
    with_current(
        session,
        "there is no run to roll back: nothing to do",
        |run| {
            Some(format!(
                "Give back the state before run {} ({}, begun {})?",
                run.id, run.plan_name, run.started
            ))
        },
        |engine, run| engine.roll_back(run),
    )
}

/// Makes the journal anew from its copies; false when another run holds it.
fn restored(session: &Session) -> Result<bool> {
    let path = Path::new(paths::JOURNAL);
    match Lock::take(path) {
        Ok(_lock) => {
            journal::restore_from_copies(path)?;
            session
                .output
                .message("the journal is made anew from its copy; the damaged one is kept beside it");
            Ok(true)
        }
        Err(error @ LockError::Held(_)) => {
            session.output.error(&error.into());
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

fn with_current(
    session: &Session,
    nothing: &str,
    question: impl Fn(&Run) -> Option<String>,
    work: impl FnOnce(&mut Engine<'_>, &Run) -> Result<Ending>,
) -> Result<Exit> {
    if !journal::is_there(Path::new(paths::JOURNAL)) {
        session.output.message(nothing);
        session.output.document(&RunDocument::nothing())?;
        return Ok(Exit::Done);
    }
    let runner = match Runner::begin(session)? {
        Ok(runner) => runner,
        Err(exit) => return Ok(exit),
    };
    let current = runner.journal.current()?;
    let Some((run, question)) = current.and_then(|run| question(&run).map(|question| (run, question))) else {
        session.output.message(nothing);
        session.output.document(&RunDocument::nothing())?;
        return Ok(Exit::Done);
    };
    if !session.confirm(&question)? {
        session.output.message("nothing was changed");
        return Ok(Exit::Failed);
    }
    runner.drive(session, false, |engine| work(engine, &run))
}
