//! The journal: what a run has done, is doing and can undo.
//!
//! An SQLite database with a write-ahead log and `synchronous=FULL`, outside `/nix` and readable by root alone. Each
//! change of a step's state is one durable transaction, and what a step needs to be undone is committed in the
//! transaction that says "doing", before anything is changed.

mod lock;
mod schema;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

pub use lock::{Lock, LockError};

/// Why the journal could not be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// SQLite's complaint.
    #[error("the journal {path} cannot be used: {source}")]
    Sqlite {
        /// The journal.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// Its directory could not be made.
    #[error("cannot prepare the state directory {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A newer version of this tool wrote it.
    #[error(
        "the journal {path} has version {found}, this nix-unroot knows up to {}: use the newer nix-unroot that wrote it",
        schema::VERSION
    )]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// A row holds something that this version does not know.
    #[error(
        "the journal {path} holds {what}, which this nix-unroot does not know: use the version that wrote it"
    )]
    Unknown {
        /// The journal.
        path: PathBuf,
        /// What is unknown.
        what: String,
    },
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize)]
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
#[derive(Clone, Debug, Serialize)]
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

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    connection: Connection,
    path: PathBuf,
}

impl Journal {
    /// Opens the journal at `path` for writing, making it and its directory (root's alone) when they are not there.
    ///
    /// # Errors
    /// When it cannot be made or read, or a newer version wrote it.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        prepare_directory(path)?;
        let journal = Self::connect(
            path,
            path.as_os_str(),
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        )?;
        journal.with(schema::upgrade)?;
        Ok(journal)
    }

    /// Opens an existing journal for reading, without making or changing any file; `None` when there is none, or
    /// none that this user can see.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_existing(path: &Path) -> Result<Option<Self>, JournalError> {
        if !path.exists() {
            return Ok(None);
        }
        // A reader of a WAL database makes a `-shm` file beside it, unless it is told that nobody writes, or that it
        // must not (https://www.sqlite.org/wal.html, "Read-Only Databases"). The log stays behind when a run is killed.
        let how = match path.with_file_name("journal.sqlite-wal").exists() {
            true => "mode=ro&readonly_shm=1",
            false => "immutable=1",
        };
        let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        let uri = format!("file:{escaped}?{how}");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        Self::connect(path, uri.as_ref(), flags).map(Some)
    }

    fn connect(path: &Path, name: &OsStr, flags: OpenFlags) -> Result<Self, JournalError> {
        let sqlite = |source| JournalError::Sqlite { path: path.to_owned(), source };
        let connection = Connection::open_with_flags(name, flags).map_err(sqlite)?;
        let journal = Self { connection, path: path.to_owned() };
        let found: i64 = journal
            .with(|connection| connection.pragma_query_value(None, "user_version", |row| row.get(0)))?;
        if found > schema::VERSION {
            return Err(JournalError::Newer { path: path.to_owned(), found });
        }
        Ok(journal)
    }

    /// Records a new run with its steps, all pending; returns its number.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(&mut self, plan_name: &str, plan: &str, step_ids: &[&str]) -> Result<i64, JournalError> {
        let path = self.path.clone();
        let write = |connection: &mut Connection| -> rusqlite::Result<i64> {
            let transaction = connection.transaction()?;
            transaction.execute(
                "INSERT INTO runs (plan_name, state, tool_version, started, plan) VALUES (?1, ?2, ?3, datetime('now'), ?4)",
                params![plan_name, word(RunState::Applying), env!("CARGO_PKG_VERSION"), plan],
            )?;
            let run = transaction.last_insert_rowid();
            for (index, id) in step_ids.iter().enumerate() {
                transaction.execute(
                    "INSERT INTO steps (run, position, id, state) VALUES (?1, ?2, ?3, ?4)",
                    params![run, index, id, word(StepState::Pending)],
                )?;
            }
            transaction.commit()?;
            Ok(run)
        };
        write(&mut self.connection).map_err(|source| JournalError::Sqlite { path, source })
    }

    /// Records how far a run is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_run(&self, run: i64, state: RunState) -> Result<(), JournalError> {
        let ended = matches!(state, RunState::Applied | RunState::Undone | RunState::Final);
        self.with(|connection| {
            connection.execute(
                "UPDATE runs SET state = ?2, finished = CASE WHEN ?3 THEN datetime('now') END WHERE id = ?1",
                params![run, word(state), ended],
            )
        })
        .map(drop)
    }

    /// Records that a step begins, with what it needs to be undone.
    ///
    /// # Errors
    /// When it cannot be written; then the step must not be done.
    pub fn begin_step(&self, run: i64, index: usize, captured: &str) -> Result<(), JournalError> {
        self.with(|connection| {
            connection.execute(
                "UPDATE steps SET state = ?3, captured = ?4, error = NULL, changed = datetime('now') WHERE run = ?1 AND position = ?2",
                params![run, index, word(StepState::Doing), captured],
            )
        })
        .map(drop)
    }

    /// Records how far a step is, and the error that stopped it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_step(
        &self,
        run: i64,
        index: usize,
        state: StepState,
        error: Option<&str>,
    ) -> Result<(), JournalError> {
        self.with(|connection| {
            connection.execute(
                "UPDATE steps SET state = ?3, error = COALESCE(?4, error), changed = datetime('now') WHERE run = ?1 AND position = ?2",
                params![run, index, word(state), error],
            )
        })
        .map(drop)
    }

    /// All runs, the oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn runs(&self) -> Result<Vec<Run>, JournalError> {
        let rows = self.with(|connection| {
            connection
                .prepare("SELECT id, plan_name, state, tool_version, started, finished, plan FROM runs ORDER BY id")?
                .query_map([], read_run)?
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        rows.into_iter().map(|(run, state)| Ok(Run { state: self.known(&state)?, ..run })).collect()
    }

    /// The last run that can go on or back: the one that `resume` and `rollback` are about.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn current(&self) -> Result<Option<Run>, JournalError> {
        Ok(self
            .runs()?
            .into_iter()
            .rev()
            .find(|run| !matches!(run.state, RunState::Undone | RunState::Final)))
    }

    /// The steps of a run, in the plan's order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn steps(&self, run: i64) -> Result<Vec<StepRecord>, JournalError> {
        let rows = self.with(|connection| {
            connection
                .prepare("SELECT position, id, state, captured, error, changed FROM steps WHERE run = ?1 ORDER BY position")?
                .query_map([run], read_step)?
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        rows.into_iter().map(|(step, state)| Ok(StepRecord { state: self.known(&state)?, ..step })).collect()
    }

    /// Whether the run `id` exists.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn has_run(&self, id: i64) -> Result<bool, JournalError> {
        self.with(|connection| {
            connection.query_row("SELECT 1 FROM runs WHERE id = ?1", [id], |_| Ok(())).optional()
        })
        .map(|row| row.is_some())
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, JournalError> {
        work(&self.connection).map_err(|source| JournalError::Sqlite { path: self.path.clone(), source })
    }

    fn known<T: for<'de> Deserialize<'de>>(&self, text: &str) -> Result<T, JournalError> {
        serde_json::from_value(text.into()).map_err(|_| JournalError::Unknown {
            path: self.path.clone(),
            what: format!("the state {text:?}"),
        })
    }
}

fn prepare_directory(journal: &Path) -> Result<(), JournalError> {
    let Some(directory) = journal.parent() else { return Ok(()) };
    let prepare = || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
    };
    prepare().map_err(|source| JournalError::Directory { path: directory.to_owned(), source })
}

/// The word that stands for a state in the database: the same as in JSON.
fn word(state: impl Serialize) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(word)) => word,
        // The states are enums without fields, which always serialise to a string.
        _ => String::new(),
    }
}

// A row's state stays text until the statement is done, so that an unknown word is told apart from SQLite's errors.
fn read_run(row: &Row<'_>) -> rusqlite::Result<(Run, String)> {
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

fn read_step(row: &Row<'_>) -> rusqlite::Result<(StepRecord, String)> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> (tempfile::TempDir, Journal) {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&dir.path().join("state/journal.sqlite")).unwrap();
        (dir, journal)
    }

    #[test]
    fn a_step_is_recorded_with_what_it_captured() {
        let (_dir, mut journal) = journal();
        let run = journal.begin("migrate", "{}", &["one", "two"]).unwrap();
        journal.begin_step(run, 1, "{\"was\":1}").unwrap();
        journal.set_step(run, 0, StepState::Skipped, None).unwrap();
        let steps = journal.steps(run).unwrap();
        assert_eq!((steps[0].state, steps[1].state), (StepState::Skipped, StepState::Doing));
        assert_eq!(steps[1].captured.as_deref(), Some("{\"was\":1}"));
        assert_eq!(journal.current().unwrap().unwrap().id, run);
        journal.set_run(run, RunState::Undone).unwrap();
        assert!(journal.current().unwrap().is_none());
        assert!(journal.runs().unwrap()[0].finished.is_some());
    }

    #[test]
    fn a_newer_journal_is_refused_by_name() {
        let (dir, journal) = journal();
        journal.connection.pragma_update(None, "user_version", 99).unwrap();
        drop(journal);
        let error = Journal::open(&dir.path().join("state/journal.sqlite")).unwrap_err().to_string();
        assert!(error.contains("version 99") && error.contains("newer nix-unroot"), "{error}");
    }

    #[test]
    fn an_unknown_state_is_refused_not_skipped() {
        let (_dir, mut journal) = journal();
        let run = journal.begin("migrate", "{}", &["one"]).unwrap();
        journal.connection.execute("UPDATE steps SET state = 'frobbed'", []).unwrap();
        let error = journal.steps(run).unwrap_err().to_string();
        assert!(error.contains("frobbed"), "{error}");
    }

    #[test]
    fn every_write_is_durable() {
        let (_dir, journal) = journal();
        let pragma = |name: &str| -> String {
            journal
                .connection
                .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
                .map(|value| format!("{value:?}"))
                .unwrap()
        };
        assert_eq!(pragma("synchronous"), "Integer(2)", "FULL");
        assert_eq!(pragma("journal_mode"), "Text(\"wal\")");
    }

    #[test]
    fn others_cannot_read_it() {
        let (dir, _journal) = journal();
        let mode = fs::metadata(dir.path().join("state")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
