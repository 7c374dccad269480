//! Runs from the command line: how they begin, what is told of them, and how the command ends. `recover` goes on with them, and back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::Session;
use super::args::Status;
use super::exit::Exit;
use super::intention::Intention;
use super::log::{Event, Level};
use super::machine::UNINSTALL;
use super::progress::Progress;
use crate::actions::Action;
use crate::actions::conflict::Conflict;
use crate::engine::{self, Drifted, Ending, Engine};
use crate::facts::{RawProcess, macos, running_processes};
use crate::journal::{self, Journal, Lock, LockError, Run, RunState};
use crate::plan::Plan;
use crate::platform::paths;
use crate::report::Document;
use crate::system::package_lock::{PackageLockError, PackageLocks};
use crate::system::{checkpoint, own_program};
use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;

/// The document of a command that changes things, with `--json`: how it ended.
#[derive(JsonSchema, Serialize)]
pub struct RunDocument {
    /// Its number in the journal; null when there was nothing to do.
    run: Option<i64>,
    /// How it ended.
    outcome: Outcome,
    /// Whether this command changed something of the machine that is changed still. The journal does not count.
    changed: bool,
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
    /// Somebody said no.
    Declined,
    /// Nothing was undone: somebody has to choose first.
    Conflicts,
    /// Nothing was undone: the last run is undone already, and the one before it has to be named.
    Unnamed,
    /// It stands half done.
    Stuck,
}

impl Document for RunDocument {
    const KIND: &'static str = "run";
}

impl RunDocument {
    /// There was nothing to do.
    pub fn nothing() -> Self {
        Self::of(None, Outcome::NothingToDo)
    }

    fn of(run: Option<i64>, outcome: Outcome) -> Self {
        Self { run, outcome, changed: false, conflicts: Vec::new() }
    }
}

/// How a command ends that changes things.
pub struct Ended {
    pub exit: Exit,
    /// None when the document of an error was printed already.
    document: Option<RunDocument>,
}

impl Ended {
    /// There was nothing to do.
    pub fn nothing() -> Self {
        Self { exit: Exit::Done, document: Some(RunDocument::nothing()) }
    }

    /// A run is in effect, and whether it is to be undone nobody said.
    pub fn unnamed(run: i64) -> Self {
        Self { exit: Exit::Blocked, document: Some(RunDocument::of(Some(run), Outcome::Unnamed)) }
    }

    /// Nothing was done because of these.
    pub fn undecided(run: Option<i64>, conflicts: Vec<Conflict>) -> Self {
        let document = RunDocument { conflicts, ..RunDocument::of(run, Outcome::Conflicts) };
        Self { exit: Exit::Blocked, document: Some(document) }
    }

    /// Somebody said no.
    pub fn declined(session: &Session) -> Self {
        session.output.message("nothing was changed");
        Self { exit: Exit::Failed, document: Some(RunDocument::of(None, Outcome::Declined)) }
    }

    /// Something forbids it, as this error says.
    pub fn refused(session: &Session, error: &anyhow::Error) -> Self {
        Self { exit: session.failed(error, Exit::Blocked), document: None }
    }

    /// Says whether anything was changed, prints the document, and gives the exit status.
    ///
    /// # Errors
    /// When nothing was changed and the document cannot be printed.
    pub fn finish(self, session: &Session, status: Status) -> Result<Exit> {
        let Some(mut document) = self.document else { return Ok(self.exit) };
        document.changed |= session.touched.get();
        let changed = document.changed;
        let event = Event::new("result", format!("changed: {changed}")).with("changed", changed);
        let outcome = serde_json::to_value(document.outcome).unwrap_or_default();
        session.output.log.tell(&event.with("outcome", outcome).with("of", document.run));
        match session.output.document(&document) {
            // The run is what it is, also when nobody reads of it.
            Err(error) if !changed => return Err(error),
            _ => {}
        }
        Ok(if changed && status.exit_code && self.exit == Exit::Done { Exit::Changes } else { self.exit })
    }
}

/// A journal and the lock on it, for one run after the other.
pub struct Runner {
    pub journal: Journal,
    _lock: Lock,
    _packages: PackageLocks,
    /// Where a volume was mounted that is gone for good.
    pub lost: Option<PathBuf>,
}

impl Runner {
    /// Opens the journal and takes the locks; how the command ends when another run or a package manager holds one.
    ///
    /// # Errors
    /// When the journal or a lock cannot be made.
    pub fn begin(session: &Session) -> Result<std::result::Result<Self, Ended>> {
        if let Err(error) = own_program::check() {
            return Ok(Err(Ended::refused(session, &error.into())));
        }
        let lock = match lock(session)? {
            Ok(lock) => lock,
            Err(ended) => return Ok(Err(ended)),
        };
        let packages = match PackageLocks::take(roots_processes().as_deref()) {
            Ok(locks) => locks,
            Err(error @ PackageLockError::Io { .. }) => return Err(error.into()),
            Err(error) => return Ok(Err(Ended::refused(session, &error.into()))),
        };
        let journal = Journal::open(Path::new(paths::JOURNAL))?;
        Ok(Ok(Self { journal, _lock: lock, _packages: packages, lost: None }))
    }

    /// Runs a plan, and says how it ended.
    ///
    /// # Errors
    /// When the run cannot be recorded; then nothing was changed.
    pub fn apply(&mut self, session: &Session, plan: &Plan, keep_partial: bool) -> Result<Ended> {
        let run = engine::begin(&mut self.journal, &backups(), plan)?;
        checkpoint::reach("run:recorded");
        if plan.name != UNINSTALL {
            // Somebody does something else now.
            Intention::forget()?;
        }
        session.output.log.belongs_to(Path::new(paths::JOURNAL), run, true);
        self.drive(session, run, keep_partial, |engine| engine.apply(run, plan))
    }

    /// What drifted since the runs in effect, and those; how the command ends when another run holds the journal.
    ///
    /// # Errors
    /// When the journal or the machine cannot be read.
    pub fn look_at_drift(session: &Session) -> Result<std::result::Result<Drifts, Ended>> {
        let path = Path::new(paths::JOURNAL);
        let _lock = match lock_of_runs(session)? {
            Ok(Some(lock)) => lock,
            Ok(None) => return Ok(Ok(Drifts::default())),
            Err(ended) => return Ok(Err(ended)),
        };
        drifts(session, &mut Journal::open(path)?).map(Ok)
    }

    /// The same under this lock.
    ///
    /// # Errors
    /// As there.
    pub fn drifts(&mut self, session: &Session) -> Result<Drifts> {
        drifts(session, &mut self.journal)
    }

    /// What somebody else changed of what the run did.
    ///
    /// # Errors
    /// When the journal or the machine cannot be read.
    pub fn look(&mut self, session: &Session, run: &Run) -> Result<Vec<Conflict>> {
        let lost = self.lost.clone();
        looking(session, &mut self.journal, lost, |engine| engine.conflicts(run))
    }

    /// Does `work` on a run, and says how it ended.
    ///
    /// # Errors
    /// When signals cannot be watched for; then nothing was changed.
    pub fn drive(
        &mut self,
        session: &Session,
        run: i64,
        keep_partial: bool,
        work: impl FnOnce(&mut Engine<'_>) -> Result<Ending>,
    ) -> Result<Ended> {
        let cancelled = session.signals()?;
        let progress = Progress::new(session.output.verbose, Arc::clone(&session.output.log));
        let mut engine = Engine {
            journal: &mut self.journal,
            backups: backups(),
            observer: &progress,
            cancelled,
            keep_partial,
            lost: self.lost.clone(),
            work_places: paths::WORK_PLACES,
        };
        let ended = work(&mut engine);
        let touched = progress.touched() > 0;
        drop(progress);
        let recorded =
            self.journal.runs().ok().and_then(|runs| runs.into_iter().find(|other| other.id == run));
        let plan = recorded.and_then(|run| Plan::read(&run.plan).ok());
        let done = plan.as_ref().map_or("", |plan| &plan.done);
        let below = self.journal.current().ok().flatten().filter(|run| run.state == RunState::Applied);
        let ending = ended.unwrap_or_else(|error| {
            session.output.error(&error.context("the run was stopped where it was"));
            Ending::Stuck
        });
        let (exit, outcome) = tell(session, &ending, done);
        if let (Ending::Applied, Some(program)) = (&ending, plan.as_ref().and_then(started_by)) {
            session.output.message(&format!(
                "nothing starts the daemon here but you: run {} as root whenever the container starts (in the foreground; it ends with SIGTERM)",
                program.display()
            ));
        }
        if let (Ending::Undone, Some(run)) = (&ending, below) {
            let (id, name) = (run.id, run.plan_name);
            session.output.message(&format!(
                "run {id} ({name}) is still in effect: nix-unroot rollback {id} undoes that"
            ));
        }
        let changed = touched && !matches!(ending, Ending::FailedAndUndone | Ending::Undecided);
        session.touched.set(session.touched.get() || changed);
        let document = RunDocument { changed, ..RunDocument::of(Some(run), outcome) };
        Ok(Ended { exit, document: Some(document) })
    }
}

/// Takes the lock; how the command ends when another run holds it.
///
/// # Errors
/// When it cannot be taken for another reason.
pub fn lock(session: &Session) -> Result<std::result::Result<Lock, Ended>> {
    match Lock::take(Path::new(paths::JOURNAL)) {
        Err(error @ LockError::Held { .. }) => Ok(Err(Ended::refused(session, &error.into()))),
        lock => Ok(Ok(lock?)),
    }
}

/// Keeps runs away from a command that only looks, where there ever was one; how it ends when one goes on.
///
/// # Errors
/// When the lock cannot be taken for another reason.
pub fn lock_of_runs(session: &Session) -> Result<std::result::Result<Option<Lock>, Ended>> {
    match journal::is_there(Path::new(paths::JOURNAL)) {
        true => Ok(lock(session)?.map(Some)),
        false => Ok(Ok(None)),
    }
}

/// The runs in effect, and what drifted of them.
pub type Drifts = (Vec<(Run, Plan)>, Vec<Drifted>);

fn drifts(session: &Session, journal: &mut Journal) -> Result<Drifts> {
    looking(session, journal, None, |engine| {
        let runs = engine.in_effect()?;
        let drifts = engine.drifts(&runs)?;
        Ok((runs, drifts))
    })
}

/// What somebody has to start after this, where no init system does.
fn started_by(plan: &Plan) -> Option<&Path> {
    plan.steps.iter().find_map(|step| match &step.action {
        Action::Verify(verify) => verify.started_by.as_deref(),
        _ => None,
    })
}

/// An engine that only looks.
fn looking<T>(
    session: &Session,
    journal: &mut Journal,
    lost: Option<PathBuf>,
    look: impl FnOnce(&Engine<'_>) -> Result<T>,
) -> Result<T> {
    let progress = Progress::new(false, Arc::clone(&session.output.log));
    let cancelled = AtomicBool::new(false);
    look(&Engine {
        journal,
        backups: backups(),
        observer: &progress,
        cancelled: &cancelled,
        keep_partial: false,
        lost,
        work_places: paths::WORK_PLACES,
    })
}

/// Root's processes with the words of their commands, on a Mac: there is no `/proc`.
fn roots_processes() -> Option<Vec<(i32, Vec<String>)>> {
    let of_root = |running: Vec<RawProcess>| {
        let of_root = running.into_iter().filter(|process| process.uid == 0);
        of_root.map(|process| (process.pid, process.command)).collect()
    };
    macos::is_here().then(running_processes).map(of_root)
}

/// Where backups of runs lie.
pub fn backups() -> PathBuf {
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
    let level = if exit == Exit::Done { Level::Info } else { Level::Error };
    session.output.log.tell(&Event::new("ending", text).level(level));
    (exit, outcome)
}
