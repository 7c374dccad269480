//! What a change of a run's record does to the database.

use rusqlite::{Connection, params};

use super::copy::Event;
use super::states::{Run, RunState, StepRecord, StepState, word};

/// Makes the change that `event` tells of in run `run`, as one transaction. Making it twice is the same as once.
pub fn apply(connection: &Connection, run: i64, event: &Event) -> rusqlite::Result<()> {
    match event {
        Event::Begun { plan_name, tool_version, started, plan, steps, .. } => {
            let transaction = connection.unchecked_transaction()?;
            transaction.execute(
                "INSERT OR REPLACE INTO runs (id, plan_name, state, tool_version, started, plan) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![run, plan_name, word(RunState::Applying), tool_version, started, plan],
            )?;
            for (index, id) in steps.iter().enumerate() {
                transaction.execute(
                    "INSERT OR REPLACE INTO steps (run, position, id, state) VALUES (?1, ?2, ?3, ?4)",
                    params![run, index, id, word(StepState::Pending)],
                )?;
            }
            transaction.commit()
        }
        Event::Run { state } => {
            let ended = *state == RunState::Applied || state.is_over();
            let update = "UPDATE runs SET state = ?2, finished = CASE WHEN ?3 THEN datetime('now') END WHERE id = ?1";
            connection.execute(update, params![run, word(state), ended]).map(drop)
        }
        Event::Step { index, state, captured, error } => connection
            .execute(
                "UPDATE steps SET state = ?3, changed = datetime('now'), captured = COALESCE(?4, captured),
                 error = CASE WHEN ?4 IS NULL THEN COALESCE(?5, error) ELSE ?5 END WHERE run = ?1 AND position = ?2",
                params![run, index, word(state), captured, error],
            )
            .map(drop),
    }
}

/// Makes the change to what was read of its run, for as long as the database does not have it. When that ended is not known.
pub fn show_run(event: &Event, run: &mut Run) {
    if let Event::Run { state } = event {
        run.state = *state;
    }
}

/// Makes the change to what was read of a step of its run, for as long as the database does not have it.
pub fn show_step(event: &Event, step: &mut StepRecord) {
    match event {
        Event::Step { index, state, captured, error } if *index == step.index => {
            step.state = *state;
            if captured.is_some() || error.is_some() {
                step.error.clone_from(error);
            }
            step.captured = captured.clone().or_else(|| step.captured.take());
        }
        _ => {}
    }
}
