//! `history`.

use std::path::Path;

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::Serialize;

use super::Session;
use super::exit::Exit;
use crate::journal::{Journal, Run, StepRecord, StepState};
use crate::platform::paths;
use crate::report::Document;

/// The document of `history --json`.
#[derive(JsonSchema, Serialize)]
pub struct History {
    /// From the first to the last.
    runs: Vec<Entry>,
}

impl Document for History {
    const KIND: &'static str = "history";
}

/// A run with its steps.
#[derive(JsonSchema, Serialize)]
struct Entry {
    #[serde(flatten)]
    run: Run,
    /// In the order in which they are done.
    steps: Vec<StepRecord>,
}

pub fn history(session: &Session, wanted: Option<i64>) -> Result<Exit> {
    super::require_root("reading the journal")?;
    let mut entries = Vec::new();
    if let Some(journal) = Journal::open_existing(Path::new(paths::JOURNAL))? {
        for run in journal.runs()? {
            if wanted.is_none_or(|id| id == run.id) {
                entries.push(Entry { steps: journal.steps(run.id)?, run });
            }
        }
    }
    if let (Some(id), true) = (wanted, entries.is_empty()) {
        bail!("there is no run {id}: nix-unroot history lists those that there are");
    }
    if entries.is_empty() {
        session.output.line("there were no runs");
    }
    for entry in &entries {
        session.output.line(&headline(entry));
        // A list of all runs stays readable; the steps of a run that is named, or that stands half done, are shown.
        if wanted.is_some() || session.output.verbose || entry.run.finished.is_none() {
            entry.steps.iter().for_each(|step| session.output.line(&step_line(step)));
        }
    }
    session.output.document(&History { runs: entries })?;
    Ok(Exit::Done)
}

fn headline(entry: &Entry) -> String {
    let run = &entry.run;
    let count = |state| entry.steps.iter().filter(|step| step.state == state).count();
    format!(
        "run {}: {}, {}; begun {} UTC, {}; {} steps: {} done, {} already so, {} undone (nix-unroot {})",
        run.id,
        run.plan_name,
        serde_json::to_string(&run.state).unwrap_or_default().trim_matches('"'),
        run.started,
        run.finished.as_ref().map_or("not finished".to_owned(), |time| format!("ended {time} UTC")),
        entry.steps.len(),
        count(StepState::Done),
        count(StepState::Skipped),
        count(StepState::Undone),
        run.tool_version,
    )
}

fn step_line(step: &StepRecord) -> String {
    let state = serde_json::to_string(&step.state).unwrap_or_default();
    let error = step.error.as_ref().map_or(String::new(), |error| format!("  error: {error}"));
    let changed = step.changed.as_deref().unwrap_or("-");
    format!("  {:>3} {:<8} {:<24} {changed}{error}", step.index + 1, state.trim_matches('"'), step.id)
}
