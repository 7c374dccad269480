//! Runs and steps as they are recorded.

use rusqlite::Row;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Steps are being done; after a crash: resume or roll back.
    Applying,
    /// All steps are done.
    Applied,
    /// Steps are being undone; after a crash or a failure: go on with `rollback`.
    Undoing,
    /// All is as it was.
    Undone,
    /// All steps are done, and they cannot be undone.
    Final,
}

impl RunState {
    /// Whether nothing can be done about the run any more, in either direction.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Undone | Self::Final)
    }
}

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// It was already so; there is nothing to undo.
    Skipped,
    /// Begun; what it needs to be undone is recorded.
    Doing,
    /// Done.
    Done,
    /// Undoing has begun.
    Undoing,
    /// Undone.
    Undone,
}

/// A run, as recorded.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Run {
    /// Its number, counting from 1.
    pub id: i64,
    /// The plan's name: `migrate`.
    pub plan_name: String,
    /// How far it is.
    pub state: RunState,
    /// Version of the tool that began it.
    pub tool_version: String,
    /// When it began, in UTC, `2026-11-21 09:30:00`.
    pub started: String,
    /// When it ended.
    pub finished: Option<String>,
    /// The plan as it was begun, as JSON.
    #[serde(skip)]
    pub plan: String,
}

/// A step of a run, as recorded.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct StepRecord {
    /// Position in the plan, counting from 0.
    pub index: usize,
    /// Its id in the plan.
    pub id: String,
    /// How far it is.
    pub state: StepState,
    /// What was there before, as the action recorded it, in JSON.
    #[serde(skip)]
    pub captured: Option<String>,
    /// The last error.
    pub error: Option<String>,
    /// When its state last changed, in UTC.
    pub changed: Option<String>,
}

/// The word that stands for a state in the database: the same as in JSON.
pub(super) fn word(state: impl Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(word)) => word,
        // The states are enums without fields, which always serialise to a string.
        _ => String::new(),
    }
}

// A row's state stays text until the statement is done, so that an unknown word is told apart from SQLite's errors.
pub(super) fn read_run(row: &Row<'_>) -> rusqlite::Result<(Run, String)> {
    let run = Run {
        id: row.get(0)?,
        plan_name: row.get(1)?,
        state: RunState::Applying,
        tool_version: row.get(3)?,
        started: row.get(4)?,
        finished: row.get(5)?,
        plan: row.get(6)?,
    };
    Ok((run, row.get(2)?))
}

pub(super) fn read_step(row: &Row<'_>) -> rusqlite::Result<(StepRecord, String)> {
    let step = StepRecord {
        index: row.get(0)?,
        id: row.get(1)?,
        state: StepState::Pending,
        captured: row.get(3)?,
        error: row.get(4)?,
        changed: row.get(5)?,
    };
    Ok((step, row.get(2)?))
}
