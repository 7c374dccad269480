//! Beginning, resuming and rolling back runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::args::RollbackArgs;
use super::conflicts;
use super::exit::Exit;
use super::progress::Progress;
use super::{Session, require_root};
use crate::actions::conflict::{Conflict, Keep};
use crate::engine::{self, Ending, Engine};
use crate::journal::{self, Journal, Lock, LockError, Run, RunState};
use crate::plan::Plan;
use crate::platform::paths;
use crate::report::Document;
use crate::system::package_lock::{PackageLockError, PackageLocks};

/// The document of a run with `--json`: how it ended.
#[derive(JsonSchema, Serialize)]
pub struct RunDocument {
    /// Its number in the journal; null when there was nothing to do.
    run: Option<i64>,
    /// How it ended.
    outcome: Outcome,
    /// What nobody chose about, with both versions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    conflicts: Vec<Conflict>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    /// There was no run.
    NothingToDo,
    /// Every step is done, and a rollback undoes them.
    Applied,
    /// Every step is done, for good.
    Final,
    /// Everything is as it was before.
    Undone,
    /// A step failed, and everything is as it was before.
    FailedAndUndone,
    /// Nothing was undone: somebody has to choose first.
    Conflicts,
    /// It stands half done.
    Stuck,
}

impl Document for RunDocument {
    const KIND: &'static str = "run";
}

impl RunDocument {
    /// There was nothing to do.
    pub fn nothing() -> Self {
        Self { run: None, outcome: Outcome::NothingToDo, conflicts: Vec::new() }
    }

    /// Nothing was undone because of these.
    fn undecided(run: i64, conflicts: Vec<Conflict>) -> Self {
        Self { run: Some(run), outcome: Outcome::Conflicts, conflicts }
    }
}

/// A journal and the lock on it.
pub struct Runner {
    journal: Journal,
    _lock: Lock,
    _packages: PackageLocks,
}

impl Runner {
    /// Opens the journal and takes the locks; an exit status when another run or a package manager holds one.
    ///
    /// # Errors
    /// When the journal or a lock cannot be made.
    pub fn begin(session: &Session) -> Result<std::result::Result<Self, Exit>> {
        let path = Path::new(paths::JOURNAL);
        let held = |error: anyhow::Error| {
            super::failed(&session.output, &error, Exit::Blocked);
            Ok(Err(Exit::Blocked))
        };
        let lock = match Lock::take(path) {
            Ok(lock) => lock,
            Err(error @ LockError::Held(_)) => return held(error.into()),
            Err(error) => return Err(error.into()),
        };
        let packages = match PackageLocks::take() {
            Ok(locks) => locks,
            Err(error @ PackageLockError::Io { .. }) => return Err(error.into()),
            Err(error) => return held(error.into()),
        };
        Ok(Ok(Self { journal: Journal::open(path)?, _lock: lock, _packages: packages }))
    }

    /// Runs a plan, and says how it ended.
    ///
    /// # Errors
    /// When the run cannot be recorded; then nothing was changed.
    pub fn apply(mut self, session: &Session, plan: &Plan, keep_partial: bool) -> Result<Exit> {
        let run = engine::begin(&mut self.journal, &backups(), plan)?;
        self.drive(session, keep_partial, |engine| engine.apply(run, plan))
    }

    /// What somebody else changed of what the run did.
    fn look(&mut self, run: &Run) -> Result<Vec<Conflict>> {
        let (progress, cancelled) = (Progress::new(false), AtomicBool::new(false));
        let engine = Engine {
            journal: &mut self.journal,
            backups: backups(),
            observer: &progress,
            cancelled: &cancelled,
            keep_partial: false,
            work_places: paths::WORK_PLACES,
        };
        engine.conflicts(run)
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
            work_places: paths::WORK_PLACES,
        };
        let ended = work(&mut engine);
        drop(progress);
        let run = self.journal.runs().ok().and_then(|mut runs| runs.pop());
        let done =
            run.as_ref().and_then(|run| Plan::read(&run.plan).ok()).map_or(String::new(), |plan| plan.done);
        let below = self.journal.current().ok().flatten().filter(|run| run.state == RunState::Applied);
        let (exit, outcome) = match ended {
            Ok(ending) => {
                let told = tell(session, &ending, &done);
                if let (Ending::Undone, Some(run)) = (&ending, below) {
                    let (id, name) = (run.id, run.plan_name);
                    session.output.message(&format!(
                        "run {id} ({name}) is still in effect; rollback again undoes that"
                    ));
                }
                told
            }
            Err(error) => {
                session.output.error(&error.context("the run was stopped where it was"));
                tell(session, &Ending::Stuck, &done)
            }
        };
        let run = run.map(|run| run.id);
        // The run is what it is, also when nobody reads of it.
        let document = RunDocument { run, outcome, conflicts: Vec::new() };
        let _ = session.output.document(&document);
        Ok(exit)
    }
}

/// The name of the plan that made `/nix`.
const INSTALL: &str = "install";

fn backups() -> PathBuf {
    Path::new(paths::STATE_DIR).join("backups")
}

/// Says how a run ended, `done` being what its plan says of that.
fn tell(session: &Session, ending: &Ending, done: &str) -> (Exit, Outcome) {
    let done = format!("done: {done}");
    let (exit, outcome, text) = match ending {
        Ending::Applied => (Exit::Done, Outcome::Applied, done.as_str()),
        Ending::Final => (Exit::Done, Outcome::Final, done.as_str()),
        Ending::Undone => (Exit::Done, Outcome::Undone, "done: everything is as it was before"),
        Ending::FailedAndUndone => {
            (Exit::Failed, Outcome::FailedAndUndone, "failed; what had been done is undone")
        }
        Ending::Undecided => (
            Exit::Blocked,
            Outcome::Conflicts,
            "nothing was undone: somebody else changed what is named above since; nix-unroot rollback shows both versions",
        ),
        Ending::Stuck => (
            Exit::Stuck,
            Outcome::Stuck,
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
            (!matches!(run.state, RunState::Applied | RunState::Undone | RunState::Final)).then(|| match run
                .state
            {
                RunState::Undoing => {
                    format!("Go on undoing run {} ({}, begun {})?", run.id, run.plan_name, run.started)
                }
                _ => format!("Go on with run {} ({}, begun {})?", run.id, run.plan_name, run.started),
            })
        },
        None,
        |engine, run| engine.resume(run),
    )
}

/// `rollback`.
pub fn rollback(session: &Session, args: &RollbackArgs) -> Result<Exit> {
    require_root("rolling back")?;
    if args.from_copy && !restored(session)? {
        return Ok(Exit::Blocked);
    }
    with_current(
        session,
        "there is no run to roll back: nothing to do",
        |run| {
            let what = if run.plan_name == INSTALL && run.state == RunState::Applied {
                session.output.message(
                    "this removes Nix and its whole store with all that was built since, for every user of this machine",
                );
                "Delete /nix, and give back"
            } else {
                "Give back"
            };
            Some(format!(
                "{what} the state before run {} ({}, begun {})?",
                run.id, run.plan_name, run.started
            ))
        },
        Some(&|found| conflicts::choose(session, found, args.keep)),
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

/// Finds out whose version stays of each conflict; `None` when nobody says.
type Choose<'a> = dyn Fn(&[Conflict]) -> Result<Option<Vec<(Conflict, Keep)>>> + 'a;

fn with_current(
    session: &Session,
    nothing: &str,
    question: impl Fn(&Run) -> Option<String>,
    choose: Option<&Choose<'_>>,
    work: impl FnOnce(&mut Engine<'_>, &Run) -> Result<Ending>,
) -> Result<Exit> {
    if !journal::is_there(Path::new(paths::JOURNAL)) {
        session.output.message(nothing);
        session.output.document(&RunDocument::nothing())?;
        return Ok(Exit::Done);
    }
    let mut runner = match Runner::begin(session)? {
        Ok(runner) => runner,
        Err(exit) => return Ok(exit),
    };
    let current = runner.journal.current()?;
    let Some((run, question)) = current.and_then(|run| question(&run).map(|question| (run, question))) else {
        session.output.message(nothing);
        session.output.document(&RunDocument::nothing())?;
        return Ok(Exit::Done);
    };
    let mut chosen = Vec::new();
    if let Some(choose) = choose {
        let found = runner.look(&run)?;
        match choose(&found)? {
            Some(all) => chosen = all,
            None => {
                session.output.document(&RunDocument::undecided(run.id, found))?;
                return Ok(Exit::Blocked);
            }
        }
    }
    if !session.confirm(&question)? {
        session.output.message("nothing was changed");
        return Ok(Exit::Failed);
    }
    runner.drive(session, false, |engine| {
        engine.choose(&run, &chosen)?;
        work(engine, &run)
    })
}
