//! Runs plans: does steps, records each transition before it happens, undoes what has to be undone.
//!
//! ```text
//! step:  pending -> skipped                     it was already so
//!        pending -> doing -> done               captured state is committed with "doing"
//!        doing | done -> undoing -> undone      in reverse order
//! run:   applying -> applied                    all steps done or skipped
//!        applying | applied -> undoing -> undone
//!        applying -> final                      all steps done, and the last of them can never be undone
//! ```
//!
//! A process that dies anywhere leaves a run that is "applying" or "undoing". [`Engine::resume`] goes on in the
//! recorded direction; [`Engine::roll_back`] goes back from either.

mod drift;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

pub use drift::Drifted;

use crate::actions::conflict::{Choice, Choices, Conflict, Keep, Scan};
use crate::actions::need_volume::works_below;
use crate::actions::{Host, Observer};
use crate::journal::{Journal, Run, RunState, StepRecord, StepState};
use crate::plan::{Plan, Step};
use crate::system::files::sync_file_systems;
use crate::system::{checkpoint, text};

/// Who watches a run, step by step.
pub trait RunObserver: Observer {
    /// A step begins. `index` counts from 0.
    fn step_begins(&self, direction: Direction, index: usize, total: usize, step: &Step);
    /// A step ended.
    fn step_ends(&self, direction: Direction, index: usize, step: &Step, ending: &StepEnding);
    /// This observer as what actions see of it.
    fn as_observer(&self) -> &dyn Observer;
}

/// Which way a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Steps are done.
    Forward,
    /// Steps are undone.
    Back,
}

/// How a step ended.
#[derive(Debug)]
pub enum StepEnding {
    /// Done, or undone.
    Done,
    /// It was already so.
    Skipped,
    /// It failed.
    Failed(anyhow::Error),
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Applied,
    /// A step failed, and all that was done is undone.
    FailedAndUndone,
    /// All steps are done, and what they did cannot be undone.
    Final,
    /// All is undone, as asked.
    Undone,
    /// A step failed, and what was done stays (`--keep-partial`), or undoing failed too.
    Stuck,
    /// Somebody else changed what the run did, and nobody chose whose version stays: nothing was undone.
    Undecided,
}

/// Records a new run of `plan`; returns its number.
///
/// # Errors
/// When an earlier run is not ended, or is one that this plan does not go on top of: undoing this one would not undo that one. When the
/// journal cannot be written.
pub fn begin(journal: &mut Journal, backups: &Path, plan: &Plan) -> Result<i64> {
    let below = journal.current()?.filter(|run| !(plan.goes_on_top && run.state == RunState::Applied));
    if let Some(run) = &below
        && !(run.state == RunState::Applied && recorded_plan(run)?.ends_here)
    {
        bail!(
            "run {} ({}) is not undone: nix-unroot rollback ends it, nix-unroot history shows it",
            run.id,
            run.plan_name
        );
    }
    // Backups of a journal that is gone are nobody's any more, but are kept aside. Before the run is recorded: a run that is
    // recorded must be able to begin.
    let directory = run_directory(backups, journal.next_run()?);
    if directory.exists() {
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let aside = directory.with_extension(format!("before-{seconds}"));
        fs::rename(&directory, &aside)
            .with_context(|| format!("cannot move {} away", directory.display()))?;
    }
    let ids: Vec<_> = plan.steps.iter().map(|step| step.id.as_str()).collect();
    let begun = journal.begin(&plan.name, &plan.to_json()?, &ids)?;
    // Not before: a removal could not be undone any more, and nothing would have come after it.
    end_below(journal, begun, plan)?;
    Ok(begun)
}

/// A removal that ended, and could be undone until now, cannot any more: another run has begun, which does not go on top of it.
fn end_below(journal: &Journal, run: i64, plan: &Plan) -> Result<()> {
    let before = journal.runs()?.into_iter().rev().find(|before| before.id < run && !before.state.is_over());
    match before {
        Some(before) if !plan.goes_on_top && recorded_plan(&before)?.ends_here => {
            Ok(journal.set_run(before.id, RunState::Final)?)
        }
        _ => Ok(()),
    }
}

/// Where the backups of a run lie.
pub fn run_directory(backups: &Path, run: i64) -> PathBuf {
    backups.join(format!("run-{run}"))
}

/// Runs plans against the machine it is on.
pub struct Engine<'a> {
    /// Where everything is recorded.
    pub journal: &'a mut Journal,
    /// Directory of backups; each run has one of its own below it.
    pub backups: PathBuf,
    /// Who watches.
    pub observer: &'a dyn RunObserver,
    /// Set by a signal: the run stops at the next safe point.
    pub cancelled: &'a AtomicBool,
    /// Leaves what was done when a step fails.
    pub keep_partial: bool,
    /// Where a volume was mounted that is gone for good: steps that worked below it have nothing to undo, and are passed over.
    pub lost: Option<PathBuf>,
    /// Directories on whose file systems steps work. These are synced before a step is recorded as done or undone: the journal's own may
    /// be another one, and account tools do not sync all that they write.
    pub work_places: &'a [&'a str],
}

impl std::fmt::Debug for Engine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("backups", &self.backups).finish_non_exhaustive()
    }
}

impl<'a> Engine<'a> {
    /// Does the steps of a run that [`begin`] recorded.
    ///
    /// # Errors
    /// Only when the journal fails; a failing step is an [`Ending`].
    pub fn apply(&mut self, run: i64, plan: &Plan) -> Result<Ending> {
        checkpoint::reach("run:begun");
        self.forward(run, plan)
    }

    /// Goes on with a run that was interrupted, in the direction that it had.
    ///
    /// # Errors
    /// When the journal fails or holds what this version does not know.
    pub fn resume(&mut self, run: &Run) -> Result<Ending> {
        let plan = recorded_plan(run)?;
        match run.state {
            RunState::Applying => {
                // It may have died before that.
                end_below(self.journal, run.id, &plan)?;
                self.forward(run.id, &plan)
            }
            RunState::Undoing => self.back(run.id, &plan, Ending::Undone),
            RunState::Applied => Ok(Ending::Applied),
            RunState::Undone => Ok(Ending::Undone),
            RunState::Final => Ok(Ending::Final),
        }
    }

    /// Undoes a run, finished or not.
    ///
    /// # Errors
    /// As [`Engine::resume`].
    pub fn roll_back(&mut self, run: &Run) -> Result<Ending> {
        self.back(run.id, &recorded_plan(run)?, Ending::Undone)
    }

    /// What somebody else changed of what `run` did since, and nobody has chosen about yet.
    ///
    /// # Errors
    /// As [`Engine::resume`], and when what is there now cannot be read.
    pub fn conflicts(&self, run: &Run) -> Result<Vec<Conflict>> {
        let plan = recorded_plan(run)?;
        Ok(self.scan(&self.host(run.id)?, &plan, &self.records(run.id, &plan)?)?.0)
    }

    /// Writes down whose version stays of each of these.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn choose(&self, run: &Run, chosen: &[(Conflict, Keep)]) -> Result<()> {
        let choice = |(conflict, keep): &(Conflict, Keep)| Choice {
            path: conflict.path.clone(),
            digest: conflict.digest.clone(),
            keep: *keep,
        };
        self.keep_choices(run.id, &chosen.iter().map(choice).collect::<Vec<_>>())
    }

    fn keep_choices(&self, run: i64, choices: &[Choice]) -> Result<()> {
        self.journal.with_room(|| {
            let mut host = self.host(run)?;
            host.choices.add(&host.backups, choices.to_vec())
        })
    }

    fn forward(&mut self, run: i64, plan: &Plan) -> Result<Ending> {
        let host = self.host(run)?;
        for (index, (step, record)) in plan.steps.iter().zip(self.records(run, plan)?).enumerate() {
            if matches!(record.state, StepState::Done | StepState::Skipped) {
                continue;
            }
            self.observer.step_begins(Direction::Forward, index, plan.steps.len(), step);
            let ending = match self.do_step(&host, run, index, step, &record) {
                Ok(ending) => ending,
                Err(error) => StepEnding::Failed(error),
            };
            self.observer.step_ends(Direction::Forward, index, step, &ending);
            if let StepEnding::Failed(error) = ending {
                self.record_error(run, index, &error);
                return match self.keep_partial || self.is_past_return(run, plan)?.is_some() {
                    true => Ok(Ending::Stuck),
                    false => self.back(run, plan, Ending::FailedAndUndone),
                };
            }
        }
        let (state, ending) = match self.is_past_return(run, plan)? {
            Some(_) => (RunState::Final, Ending::Final),
            None => (RunState::Applied, Ending::Applied),
        };
        checkpoint::enter("run:applied");
        self.journal.set_run(run, state)?;
        checkpoint::reach("run:applied");
        Ok(ending)
    }

    /// The first step that has begun and can never be undone.
    fn is_past_return<'p>(&self, run: i64, plan: &'p Plan) -> Result<Option<&'p Step>> {
        let begun = |record: &StepRecord| !matches!(record.state, StepState::Pending | StepState::Skipped);
        let steps = plan.steps.iter().zip(self.records(run, plan)?);
        Ok(steps
            .filter(|(step, record)| step.action.is_irrevocable() && begun(record))
            .map(|(step, _)| step)
            .next())
    }

    /// An error that cannot be recorded (the disk may be full) was shown already, and must not keep us from undoing.
    fn record_error(&self, run: i64, index: usize, error: &anyhow::Error) {
        let record = || {
            let state = self.journal.steps(run)?[index].state;
            self.journal.set_step(run, index, state, Some(&format!("{error:#}")))
        };
        if let Err(unrecorded) = record() {
            self.observer.as_observer().note(&format!("this error is not in the journal: {unrecorded}"));
        }
    }

    fn do_step(
        &self,
        host: &Host<'_>,
        run: i64,
        index: usize,
        step: &Step,
        record: &StepRecord,
    ) -> Result<StepEnding> {
        host.check_cancelled()?;
        checkpoint::enter(&format!("do:{}", step.id));
        let captured = match &record.captured {
            // It was begun before: what was there then is recorded, what is there now may be half ours.
            Some(captured) if record.state == StepState::Doing => captured.clone(),
            _ => {
                if step.action.is_done(host)? {
                    // What others did just now must last as long as the record that there was nothing to do.
                    self.sync()?;
                    self.journal.set_step(run, index, StepState::Skipped, None)?;
                    checkpoint::reach(&format!("do:{}:skipped", step.id));
                    return Ok(StepEnding::Skipped);
                }
                let captured = step.action.capture(host)?;
                checkpoint::reach(&format!("do:{}:captured", step.id));
                self.journal.begin_step(run, index, &captured)?;
                captured
            }
        };
        checkpoint::reach(&format!("do:{}:recorded", step.id));
        step.action.apply(host, &captured)?;
        self.sync()?;
        checkpoint::reach(&format!("do:{}:applied", step.id));
        self.journal.set_step(run, index, StepState::Done, None)?;
        checkpoint::reach(&format!("do:{}:done", step.id));
        Ok(StepEnding::Done)
    }

    /// Undoes steps, the last first, and stops at the first that cannot be undone: those before it rely on it.
    fn back(&mut self, run: i64, plan: &Plan, ending: Ending) -> Result<Ending> {
        if let Some(step) = self.is_past_return(run, plan)? {
            bail!(
                "run {run} cannot be undone any more: it has begun what cannot be taken back ({}); nix-unroot resume finishes it",
                step.action.changes()
            );
        }
        checkpoint::enter("run:undoing");
        if self.has_conflicts(run, plan)? {
            return Ok(if ending == Ending::Undone { Ending::Undecided } else { Ending::Stuck });
        }
        checkpoint::inside("looked-for-conflicts");
        self.journal.set_run(run, RunState::Undoing)?;
        checkpoint::reach("run:undoing");
        if ending == Ending::FailedAndUndone {
            // A signal may have stopped the way forward; going back is not to be stopped halfway by the same one.
            self.cancelled.store(false, Ordering::Relaxed);
        }
        let host = self.host(run)?;
        for (index, (step, record)) in plan.steps.iter().zip(self.records(run, plan)?).enumerate().rev() {
            let Some(captured) = &record.captured else { continue };
            if record.state == StepState::Undone {
                continue;
            }
            if self.is_lost(step) {
                let why = "passed over: its volume is gone";
                self.journal.set_step(run, index, StepState::Undone, Some(why))?;
                continue;
            }
            self.observer.step_begins(Direction::Back, index, plan.steps.len(), step);
            // Going back needs room for the files that it puts back, and a full disk may be why we go back.
            let undone = self.journal.with_room(|| self.undo_step(&host, run, index, step, captured));
            let failed = undone.as_ref().err().map(|error| format!("{error:#}"));
            let step_ending = undone.map_or_else(StepEnding::Failed, |()| StepEnding::Done);
            self.observer.step_ends(Direction::Back, index, step, &step_ending);
            if let Some(error) = failed {
                self.journal.set_step(run, index, StepState::Undoing, Some(&error))?;
                return Ok(Ending::Stuck);
            }
        }
        checkpoint::enter("run:undone");
        self.journal.set_run(run, RunState::Undone)?;
        checkpoint::reach("run:undone");
        Ok(ending)
    }

    fn is_lost(&self, step: &Step) -> bool {
        self.lost.as_ref().is_some_and(|lost| works_below(&step.action, lost))
    }

    fn undo_step(&self, host: &Host<'_>, run: i64, index: usize, step: &Step, captured: &str) -> Result<()> {
        host.check_cancelled()?;
        checkpoint::enter(&format!("undo:{}", step.id));
        self.journal.set_step(run, index, StepState::Undoing, None)?;
        checkpoint::reach(&format!("undo:{}:recorded", step.id));
        step.action.undo(host, captured)?;
        self.sync()?;
        checkpoint::reach(&format!("undo:{}:applied", step.id));
        self.journal.set_step(run, index, StepState::Undone, None)?;
        checkpoint::reach(&format!("undo:{}:done", step.id));
        Ok(())
    }

    /// A power cut must not take back what is recorded.
    fn sync(&self) -> Result<()> {
        sync_file_systems(self.work_places).map_err(|(path, error)| {
            anyhow::Error::new(error).context(format!("cannot sync the file system of {}", path.display()))
        })
    }

    /// Whether somebody has to choose before this run is undone. All conflicts are found before the first step is undone.
    fn has_conflicts(&self, run: i64, plan: &Plan) -> Result<bool> {
        let (found, follow) = self.scan(&self.host(run)?, plan, &self.records(run, plan)?)?;
        for conflict in &found {
            self.observer.as_observer().note(&format!("{}: {}", text::path(&conflict.path), conflict.reason));
        }
        self.keep_choices(run, &follow)?;
        Ok(!found.is_empty())
    }

    /// What others changed of what the steps did that nobody has chosen about yet, and the choices that follow by themselves.
    fn scan(
        &self,
        host: &Host<'_>,
        plan: &Plan,
        records: &[StepRecord],
    ) -> Result<(Vec<Conflict>, Vec<Choice>)> {
        let mut scan = Scan::new(host);
        for (step, record) in plan.steps.iter().zip(records) {
            if let Some(captured) = &record.captured
                && record.state != StepState::Undone
                && !self.is_lost(step)
            {
                let context = || format!("cannot look at what the step {} did", step.id);
                step.action.look_for_conflicts(&mut scan, captured).with_context(context)?;
            }
        }
        let (mut found, follow) = scan.finish()?;
        found.retain(|conflict| !host.choices.has(conflict));
        Ok((found, follow))
    }

    fn records(&self, run: i64, plan: &Plan) -> Result<Vec<StepRecord>> {
        let records = self.journal.steps(run)?;
        let same = records.len() == plan.steps.len()
            && records.iter().zip(&plan.steps).all(|(record, step)| record.id == step.id);
        if !same {
            bail!("the journal's steps of run {run} are not those of its plan: the journal is damaged");
        }
        Ok(records)
    }

    fn host(&self, run: i64) -> Result<Host<'a>> {
        let backups = run_directory(&self.backups, run);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&backups)
            .with_context(|| format!("cannot make the directory {}", backups.display()))?;
        let choices = Choices::load(&backups)?;
        Ok(Host { backups, observer: self.observer.as_observer(), cancelled: self.cancelled, choices })
    }
}

/// The plan of a run, as it was recorded.
///
/// # Errors
/// When it holds what this version does not know; the error says which version does.
pub fn recorded_plan(run: &Run) -> Result<Plan> {
    Plan::read(&run.plan).with_context(|| {
        format!(
            "the plan of run {} holds what this nix-unroot does not know: use version {}, which began it",
            run.id, run.tool_version
        )
    })
}

#[cfg(test)]
mod tests;
