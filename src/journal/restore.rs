//! Telling whether the journal is whole, and making it anew from its copies.

use std::fs;
use std::io;
use std::path::Path;

use super::copy::{self, Copy, Event, Sum};
use super::{Journal, JournalError, Run, events, schema, set_aside};
use crate::system::files::sync_parent;

/// Whether there is a journal at `path`, or what was one.
pub fn is_there(path: &Path) -> bool {
    path.exists() || copy::all(path).is_ok_and(|copies| !copies.is_empty())
}

/// Makes the journal at `path` anew from the copies beside it. What was there stays, as `NAME.damaged-SECONDS`.
///
/// # Errors
/// When there is no copy, one is damaged, or a newer version wrote the journal; then nothing was changed.
pub fn restore_from_copies(path: &Path) -> Result<(), JournalError> {
    if let Err(newer @ JournalError::Newer { .. }) = Journal::open_existing(path) {
        return Err(newer);
    }
    let copies = copy::all(path).map_err(|reason| broken(path, reason))?;
    if copies.is_empty() {
        return Err(broken(path, io::Error::new(io::ErrorKind::NotFound, "there is none")));
    }
    let anew = path.with_extension("sqlite-new");
    let names = |of: &Path| {
        ["", "-wal", "-shm"].map(|suffix| {
            let mut name = of.as_os_str().to_owned();
            name.push(suffix);
            std::path::PathBuf::from(name)
        })
    };
    for name in names(&anew) {
        let _ = fs::remove_file(name);
    }
    let connection = rusqlite::Connection::open(&anew).map_err(|reason| super::sqlite(&anew, reason))?;
    let sqlite = |reason| super::sqlite(&anew, reason);
    schema::upgrade(&connection).map_err(sqlite)?;
    for (run, copy) in &copies {
        for event in Copy::read(copy).map_err(|reason| broken(copy, reason))? {
            events::apply(&connection, *run, &event).map_err(sqlite)?;
        }
    }
    // Closing it folds its log in.
    connection.close().map_err(|(_, reason)| sqlite(reason))?;
    let swap = || -> io::Result<()> {
        names(path).iter().try_for_each(|name| set_aside(name, "damaged"))?;
        fs::rename(&anew, path)?;
        sync_parent(path)
    };
    swap().map_err(|reason| broken(path, reason))
}

impl Journal {
    /// Finds what SQLite finds wrong, and what is not as the copies say. A last change that only the copy has,
    /// because the run died before the journal got it, goes to the journal now; a run without a copy gets one.
    pub(super) fn compare_with_copies(&self) -> Result<(), JournalError> {
        let verdict: String =
            self.with(|connection| connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)))?;
        if verdict != "ok" {
            return Err(self.damaged(verdict));
        }
        let runs = self.runs()?;
        for (run, path) in copy::all(&self.path).map_err(|reason| broken(&self.path, reason))? {
            let known = runs.iter().find(|known| known.id == run);
            match Copy::read(&path) {
                // Nobody will need it.
                Err(_) if known.is_some_and(|known| known.state.is_over()) => {}
                Err(reason) => return Err(broken(&path, reason)),
                Ok(said) => self.compare(run, known, &said)?,
            }
        }
        for run in runs.iter().filter(|run| !run.state.is_over()) {
            let path = Copy::path(&self.path, run.id);
            if !path.exists() {
                Copy::create(&path, &self.events_of(run)?).map_err(|reason| broken(&path, reason))?;
            }
        }
        Ok(())
    }

    fn compare(&self, run: i64, ours: Option<&Run>, said: &[Event]) -> Result<(), JournalError> {
        let sum = Sum::of(said);
        let Some(ours) = ours else {
            let begun = sum.is_some_and(|sum| said.len() > 1 && !sum.run.is_over());
            return if begun { Err(self.damaged(format!("it lacks run {run}"))) } else { Ok(()) };
        };
        let steps = self.steps(run)?.into_iter().map(|step| (step.id, step.state, step.captured)).collect();
        let ours = Some(Sum { plan: ours.plan.clone(), run: ours.state, steps });
        if ours == sum {
            return Ok(());
        }
        if let Some((last, before)) = said.split_last()
            && ours == Sum::of(before)
        {
            return self.write(|connection| events::apply(connection, run, last));
        }
        Err(self.damaged(format!("what it says of run {run} is not what was recorded")))
    }

    /// What would have been recorded of a run that is in the journal.
    fn events_of(&self, run: &Run) -> Result<Vec<Event>, JournalError> {
        let steps = self.steps(run.id)?;
        let mut events = vec![Event::Begun {
            run: run.id,
            plan_name: run.plan_name.clone(),
            tool_version: run.tool_version.clone(),
            started: run.started.clone(),
            plan: run.plan.clone(),
            steps: steps.iter().map(|step| step.id.clone()).collect(),
        }];
        events.extend(steps.into_iter().map(|step| Event::Step {
            index: step.index,
            state: step.state,
            captured: step.captured,
            error: step.error,
        }));
        events.push(Event::Run { state: run.state });
        Ok(events)
    }

    fn damaged(&self, what: String) -> JournalError {
        JournalError::Damaged { path: self.path.clone(), what }
    }
}

fn broken(path: &Path, reason: io::Error) -> JournalError {
    JournalError::Copy { path: path.to_owned(), reason }
}
