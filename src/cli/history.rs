//! `history`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::args::HistoryArgs;
use super::exit::Exit;
use super::intention::Intention;
use super::{Session, kept_program};
use crate::journal::{Journal, Run, RunState, StepRecord, StepState, read_log};
use crate::platform::paths;
use crate::report::Document;
use crate::system::text::printable;

/// The document of `history --json`.
#[derive(JsonSchema, Serialize)]
pub struct History {
    /// Of the program that prints this.
    tool_version: &'static str,
    /// The machine's name.
    host: String,
    /// Tells machines apart, also after their names change, and does not give `/etc/machine-id` away.
    machine: Option<String>,
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
    /// Whether what it did is there now, all or a part of it.
    in_effect: bool,
    /// The first error of a step.
    error: Option<String>,
    /// In the order in which they are done.
    steps: Vec<StepRecord>,
    /// What was printed, for a run that was named, or with `--log`.
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<Vec<Value>>,
}

pub fn history(session: &Session, args: &HistoryArgs) -> Result<Exit> {
    super::require_root("reading the journal")?;
    let (wanted, path) = (args.run, Path::new(paths::JOURNAL));
    let (mut entries, mut intention, mut in_effect) = (Vec::new(), None, None);
    if let Some(journal) = Journal::open_existing(path)? {
        in_effect = journal.current()?.map(|run| run.id);
        intention = Intention::pending(&journal).unwrap_or_else(|error| {
            session.output.error(&error);
            None
        });
        for run in journal.runs()? {
            if wanted.is_none_or(|id| id == run.id) {
                entries.push(Entry::of(run, &journal, args)?);
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
        if args.log {
            entry.log.iter().flatten().for_each(|record| session.output.line(&log_line(record)));
        }
    }
    if let Some(intention) = intention {
        session.output.line(&format!(
            "a removal of Nix was agreed to ({}) and has not ended: nix-unroot resume goes on with it, nix-unroot rollback gives it up{}",
            intention.command(),
            in_effect.map_or(String::new(), |run| format!(", and undoes run {run}"))
        ));
    }
    kept_program::hint(&session.output);
    let document = History {
        tool_version: env!("CARGO_PKG_VERSION"),
        host: nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned(),
        machine: machine(),
        runs: entries,
    };
    session.output.document(&document)?;
    Ok(Exit::Done)
}

impl Entry {
    fn of(run: Run, journal: &Journal, args: &HistoryArgs) -> Result<Self> {
        let steps = journal.steps(run.id)?;
        let log = match args.log || args.run.is_some() {
            true => Some(
                read_log(Path::new(paths::JOURNAL), run.id)
                    .with_context(|| format!("cannot read the log of run {}", run.id))?,
            ),
            false => None,
        };
        let done = |step: &StepRecord| {
            !matches!(step.state, StepState::Pending | StepState::Skipped | StepState::Undone)
        };
        Ok(Self {
            in_effect: run.state != RunState::Undone && steps.iter().any(done),
            error: steps.iter().find_map(|step| step.error.clone()),
            run,
            steps,
            log,
        })
    }
}

/// A name of this machine that its `/etc/machine-id` cannot be found from: machine-id(5) asks for that.
fn machine() -> Option<String> {
    let id = std::fs::read_to_string("/etc/machine-id").ok()?;
    let digest = Sha256::new().chain_update("nix-unroot machine 1\n").chain_update(id.trim()).finalize();
    Some(digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

fn log_line(record: &Value) -> String {
    let field = |name: &str| record[name].as_str().unwrap_or_default();
    // Escaped when it was printed; line breaks are its own.
    let text: Vec<_> = field("text").lines().map(printable).collect();
    format!("  {}  {}", field("time"), text.join("\n                            "))
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
    let error = step.error.as_ref().map_or(String::new(), |error| format!("  error: {}", printable(error)));
    let changed = step.changed.as_deref().unwrap_or("-");
    format!("  {:>3} {:<8} {:<24} {changed}{error}", step.index + 1, state.trim_matches('"'), step.id)
}
