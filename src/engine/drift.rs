//! What of the runs in effect does not hold any more.

use std::path::Path;

use anyhow::{Context, Result};

use super::{Engine, recorded_plan};
use crate::actions::Action;
use crate::actions::drift::{Aspect, Drift, Repair};
use crate::journal::{Run, RunState, StepState};
use crate::plan::{Plan, Step};

/// A drift, and the step that it is a drift of.
#[derive(Clone, Debug, PartialEq)]
pub struct Drifted {
    /// The run's number.
    pub run: i64,
    /// The step.
    pub step: Step,
    /// What drifted.
    pub drift: Drift,
}

impl Engine<'_> {
    /// The runs in effect, the first at the bottom, each with its plan.
    ///
    /// # Errors
    /// When the journal cannot be read, or a plan in it is not known to this version.
    pub fn in_effect(&self) -> Result<Vec<(Run, Plan)>> {
        let runs = self.journal.runs()?.into_iter().filter(|run| run.state == RunState::Applied);
        runs.map(|run| recorded_plan(&run).map(|plan| (run, plan))).collect()
    }

    /// What of these runs is not as they left it, in the order of their steps. What a later step of the same or of another run decided about
    /// is only that one's. Changes nothing.
    ///
    /// # Errors
    /// As [`Engine::in_effect`], and when the run is to stop.
    pub fn drifts(&self, runs: &[(Run, Plan)]) -> Result<Vec<Drifted>> {
        let mut found: Vec<Drifted> = Vec::new();
        for (run, plan) in runs {
            let host = self.host(run.id)?;
            for (step, record) in plan.steps.iter().zip(self.records(run.id, plan)?) {
                host.check_cancelled()?;
                if !matches!(record.state, StepState::Done | StepState::Skipped) {
                    continue;
                }
                let (decided, kept): (Vec<_>, Vec<_>) = found
                    .into_iter()
                    .partition(|other| step.action.decides(&other.drift.path, other.drift.aspect));
                found = kept;
                let drifts = step
                    .action
                    .look_for_drift(&host, record.captured.as_deref())
                    .with_context(|| format!("cannot look at what the step {} left", step.id))
                    .or_else(|error| match found.iter().any(is_of_account) {
                        // Nobody can say what is an account's while it is not there. It is repaired first.
                        true => Ok(Vec::new()),
                        false => anyhow::Ok(vec![unreadable(step, &error)]),
                    })?;
                let drifted =
                    |drift| Drifted { run: run.id, step: step.clone(), drift: known(drift, &decided) };
                found.extend(drifts.into_iter().map(drifted));
            }
        }
        Ok(found)
    }
}

fn is_of_account(drifted: &Drifted) -> bool {
    matches!(drifted.step.action, Action::CreateUser(_) | Action::CreateGroup(_))
}

/// What stood at a path before an earlier step is known, too: a unit that was masked first and written later may be back as it was before
/// both, and nobody's work is lost when it goes again.
fn known(drift: Drift, decided: &[Drifted]) -> Drift {
    let is_known = |other: &&Drifted| {
        let other = &other.drift;
        (&other.path, other.aspect) == (&drift.path, drift.aspect) && other.conflict.is_none()
    };
    match decided.iter().find(is_known) {
        Some(other) if drift.conflict.is_some() => {
            Drift { found: other.drift.found.clone(), conflict: None, ..drift }
        }
        _ => drift,
    }
}

/// What cannot be looked at is not as it was, either: an account that other steps need, or a file system.
fn unreadable(step: &Step, error: &anyhow::Error) -> Drift {
    let remedy = "mend what the error names, and look again".to_owned();
    Drift::new(Path::new(&step.id), Aspect::Content, format!("{error:#}"), Repair::Never(remedy))
}
