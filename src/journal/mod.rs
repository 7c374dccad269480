//! The journal: what a run has done, is doing and can undo.
//!
//! An SQLite database with a write-ahead log and `synchronous=FULL`, outside `/nix` and readable by root alone. Each
//! change of a step's state is one durable transaction, and what a step needs to be undone is committed in the
//! transaction that says "doing", before anything is changed.
//!
//! Every change goes to a copy first, which does not depend on SQLite (`copy.rs`). When the journal is opened for a run,
//! both must say the same; a last change that only the copy has is made up for.

mod copy;
mod error;
mod events;
mod lock;
mod log;
mod reserve;
mod restore;
mod schema;
mod states;

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use copy::{Copy, Event};
pub use error::JournalError;
pub use lock::{Lock, LockError};
pub use log::{RunLog, read_log};
use reserve::Reserve;
pub use restore::{is_there, restore_from_copies};
pub use states::{Run, RunState, StepRecord, StepState};

use crate::system::{checkpoint, kernel};

/// Bytes with which a file system counts as full: what is given back could have mattered.
const LITTLE_ROOM: u64 = reserve::SIZE;

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    connection: Connection,
    path: PathBuf,
    reserve: Reserve,
    /// The copy of the run that is written to.
    copy: RefCell<Option<(i64, Copy)>>,
    /// The change that the copy has and the database would not take. Whoever reads sees it as made: it will be, before any other.
    missed: RefCell<Option<(i64, Event)>>,
}

impl Journal {
    /// Opens the journal at `path` for writing, making it and its directory (root's alone) when they are not there, and
    /// compares it with its copies.
    ///
    /// # Errors
    /// When it cannot be made or read, is damaged, or a newer version wrote it.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        prepare_directory(path)?;
        let reserve = Reserve::of(path);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let journal = loop {
            let opened = Self::connect(path, path.as_os_str(), flags)
                .and_then(|journal| journal.with(schema::upgrade).map(|()| journal));
            match opened {
                Err(JournalError::Sqlite { reason, .. }) if lacks_room(&reason) && reserve.release() => {}
                other => break other?,
            }
        };
        journal.compare_with_copies()?;
        match journal.current()? {
            // Without room now, the journal does with what is left of it.
            Some(_) => drop(reserve.fill()),
            // A run that died at its very beginning or end may have left it.
            None => reserve.remove(),
        }
        Ok(journal)
    }

    /// Opens an existing journal for reading, without making or changing any file; `None` when there is none, none that this user can
    /// see, or only the beginning of one that died before its first run was recorded.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_existing(path: &Path) -> Result<Option<Self>, JournalError> {
        if !path.exists() {
            return Ok(None);
        }
        // A reader of a WAL database makes a `-shm` file beside it, unless it is told that nobody writes, or that it
        // must not (https://www.sqlite.org/wal.html, "Read-Only Databases"). The log stays behind when a run is killed.
        let is_there = |suffix: &str| path.with_file_name(format!("journal.sqlite-{suffix}")).exists();
        let read = |how: &str| {
            let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            Self::connect(path, format!("file:{escaped}?{how}").as_ref(), flags)
        };
        let journal = match (is_there("wal"), is_there("shm")) {
            (true, true) => read("mode=ro&readonly_shm=1"),
            (true, false) => Self::open_without_index(path),
            (false, _) => read("immutable=1"),
        }?;
        let is_empty = journal.version()? == 0 && copy::all(path).is_ok_and(|copies| copies.is_empty());
        Ok((!is_empty).then_some(journal))
    }

    /// Opens one whose log is there and whose log's index is not: a run was killed while SQLite closed it, or the power was cut. With the
    /// database locked for itself, SQLite keeps the index in memory (https://www.sqlite.org/wal.html, "Use of WAL Without Shared-Memory");
    /// what is read is read from the log, which stays as it is.
    fn open_without_index(path: &Path) -> Result<Self, JournalError> {
        let open = || {
            let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
            Ok(connection)
        };
        Self::of(path, open().map_err(|reason| sqlite(path, reason))?)
    }

    fn connect(path: &Path, name: &OsStr, flags: OpenFlags) -> Result<Self, JournalError> {
        Self::of(path, Connection::open_with_flags(name, flags).map_err(|reason| sqlite(path, reason))?)
    }

    fn of(path: &Path, connection: Connection) -> Result<Self, JournalError> {
        let (path, reserve) = (path.to_owned(), Reserve::of(path));
        let (copy, missed) = (RefCell::default(), RefCell::default());
        let journal = Self { connection, path, reserve, copy, missed };
        let found = journal.version()?;
        if found > schema::VERSION {
            return Err(JournalError::Newer { path: journal.path, found });
        }
        Ok(journal)
    }

    /// Which form its tables have; 0 before they are made.
    fn version(&self) -> Result<i64, JournalError> {
        self.with(|connection| connection.pragma_query_value(None, "user_version", |row| row.get(0)))
    }

    /// The number that the next run gets.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn next_run(&self) -> Result<i64, JournalError> {
        self.with(|connection| {
            connection.query_row("SELECT COALESCE(MAX(id), 0) + 1 FROM runs", [], |row| row.get(0))
        })
    }

    /// Records a new run with its steps, all pending; returns its number. From here until it is undone, there is room
    /// for what it records.
    ///
    /// # Errors
    /// When it cannot be written, or there is no such room.
    pub fn begin(&mut self, plan_name: &str, plan: &str, step_ids: &[&str]) -> Result<i64, JournalError> {
        checkpoint::enter("run:begin");
        self.reserve.fill().map_err(|source| JournalError::NoRoom { path: self.path.clone(), source })?;
        checkpoint::inside("room-taken");
        let run = self.next_run()?;
        let event = Event::Begun {
            run,
            plan_name: plan_name.to_owned(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self
                .with(|connection| connection.query_row("SELECT datetime('now')", [], |row| row.get(0)))?,
            plan: plan.to_owned(),
            steps: step_ids.iter().map(ToString::to_string).collect(),
        };
        let path = Copy::path(&self.path, run);
        let make = || {
            set_aside(&path, "before")?;
            Copy::create(&path, std::slice::from_ref(&event))
        };
        let copy = make().map_err(|reason| JournalError::Copy { path: path.clone(), reason })?;
        self.copy.replace(Some((run, copy)));
        checkpoint::inside("record-copied");
        self.write(|connection| events::apply(connection, run, &event))?;
        Ok(run)
    }

    /// Records how far a run is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set_run(&self, run: i64, state: RunState) -> Result<(), JournalError> {
        self.change(run, &Event::Run { state })?;
        if state.is_over() && self.current()?.is_none() {
            checkpoint::inside("run-over");
            self.reserve.remove();
        }
        Ok(())
    }

    /// Records that a step begins, with what it needs to be undone.
    ///
    /// # Errors
    /// When it cannot be written; then the step must not be done.
    pub fn begin_step(&self, run: i64, index: usize, captured: &str) -> Result<(), JournalError> {
        let captured = Some(captured.to_owned());
        self.change(run, &Event::Step { index, state: StepState::Doing, captured, error: None })
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
        let error = error.map(str::to_owned);
        self.change(run, &Event::Step { index, state, captured: None, error })
    }

    /// Does `work` again for as long as it fails for lack of room and there is some of what is kept for the journal, of which a portion is
    /// given back each time: for undoing, and for what it needs to know. A child need not say why it failed, so on a file system that is
    /// full to the last portion any failure counts.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn with_room<T>(&self, mut work: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let mut done = work();
        while let Err(error) = &done {
            let needed = if says_full(error) { LITTLE_ROOM } else { reserve::PORTION };
            let is_full = kernel::room(&self.path).is_some_and(|room| room.free_bytes < needed);
            if !is_full || !self.reserve.release() {
                break;
            }
            done = work();
        }
        done
    }

    /// All runs, the oldest first.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn runs(&self) -> Result<Vec<Run>, JournalError> {
        let rows = self.with(|connection| {
            connection
                .prepare("SELECT id, plan_name, state, tool_version, started, finished, plan FROM runs ORDER BY id")?
                .query_map([], states::read_run)?
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        rows.into_iter()
            .map(|(run, state)| {
                let mut run = Run { state: self.known(&state)?, ..run };
                self.missed_of(run.id).iter().for_each(|event| events::show_run(event, &mut run));
                Ok(run)
            })
            .collect()
    }

    /// The last run that can go on or back: the one that `resume` and `rollback` are about.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn current(&self) -> Result<Option<Run>, JournalError> {
        Ok(self.runs()?.into_iter().rev().find(|run| !run.state.is_over()))
    }

    /// The steps of a run, in the plan's order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn steps(&self, run: i64) -> Result<Vec<StepRecord>, JournalError> {
        let rows = self.with(|connection| {
            connection
                .prepare("SELECT position, id, state, captured, error, changed FROM steps WHERE run = ?1 ORDER BY position")?
                .query_map([run], states::read_step)?
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let missed = self.missed_of(run);
        rows.into_iter()
            .map(|(step, state)| {
                let mut step = StepRecord { state: self.known(&state)?, ..step };
                missed.iter().for_each(|event| events::show_step(event, &mut step));
                Ok(step)
            })
            .collect()
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

    /// A change goes to the copy first, then to the database. That may lack the last of them and no other, so while it lacks one
    /// there is no further change.
    fn change(&self, run: i64, event: &Event) -> Result<(), JournalError> {
        if let Some((of, missed)) = &*self.missed.borrow() {
            self.write(|connection| events::apply(connection, *of, missed))?;
        }
        self.missed.take();
        let path = Copy::path(&self.path, run);
        let append = || -> io::Result<()> {
            let mut open = self.copy.borrow_mut();
            let copy = match open.take() {
                Some((of, copy)) if of == run => copy,
                _ => Copy::open(&path)?.0,
            };
            open.insert((run, copy)).1.append(event)
        };
        loop {
            match append() {
                Err(error) if is_full(&error) && self.reserve.release() => {}
                done => break done.map_err(|reason| JournalError::Copy { path: path.clone(), reason })?,
            }
        }
        checkpoint::inside("record-copied");
        let written = self.write(|connection| events::apply(connection, run, event));
        written.inspect_err(|_| drop(self.missed.replace(Some((run, event.clone())))))
    }

    fn missed_of(&self, run: i64) -> Option<Event> {
        let missed = self.missed.borrow();
        missed.as_ref().filter(|(of, _)| *of == run).map(|(_, event)| event.clone())
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, JournalError> {
        work(&self.connection).map_err(|reason| sqlite(&self.path, reason))
    }

    /// Does `work`, again when the disk is full and there is a reserve.
    fn write<T>(&self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, JournalError> {
        loop {
            match work(&self.connection) {
                Err(error) if lacks_room(&error) && self.reserve.release() => {}
                done => return done.map_err(|reason| sqlite(&self.path, reason)),
            }
        }
    }

    fn known<T: for<'de> serde::Deserialize<'de>>(&self, text: &str) -> Result<T, JournalError> {
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
    prepare().map_err(|reason| JournalError::Directory { path: directory.to_owned(), reason })
}

fn sqlite(path: &Path, reason: rusqlite::Error) -> JournalError {
    use rusqlite::Error::{FromSqlConversionFailure, InvalidColumnType, SqlInputError};
    // Our statements are right, so tables that they do not fit are not as we made them.
    let damaged =
        matches!(reason, FromSqlConversionFailure(..) | InvalidColumnType(..) | SqlInputError { .. })
            || matches!(
                reason.sqlite_error_code(),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown)
            );
    match damaged {
        true => JournalError::Damaged { path: path.to_owned(), what: reason.to_string() },
        false => JournalError::Sqlite { path: path.to_owned(), reason },
    }
}

/// Whether SQLite may have failed for lack of room: it says so only for the database itself, not for the index of its log.
fn lacks_room(error: &rusqlite::Error) -> bool {
    use ErrorCode::{CannotOpen, DiskFull, SystemIoFailure};
    matches!(error.sqlite_error_code(), Some(DiskFull | SystemIoFailure | CannotOpen))
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether a failure is one of room, in the system's words, SQLite's or a child's.
fn says_full(error: &anyhow::Error) -> bool {
    // strerror(3) of ENOSPC and EDQUOT, std's words where there is no number, and sqlite3_errstr of SQLITE_FULL.
    const WORDS: [&str; 5] = [
        "No space left on device",
        "Disk quota exceeded",
        "no storage space",
        "quota exceeded",
        "database or disk is full",
    ];
    let said = format!("{error:#}");
    WORDS.iter().any(|words| said.contains(words))
}

/// Gives what is at `path` another name, which nobody looks for: `NAME.WHY-SECONDS`.
fn set_aside(path: &Path, why: &str) -> io::Result<()> {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{why}-{seconds}"));
    match fs::rename(path, name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
