//! Nix's database, read without a trace.
//!
//! It is kept in SQLite's WAL mode, in which even a reader that says `mode=ro` makes and writes `db.sqlite-shm`
//! (measured under strace). So it is opened with `readonly_shm=1`, which takes part in the locking
//! without writing, when the daemon's `-wal` and `-shm` are there; otherwise, when no log is left, with `immutable=1`. And as
//! root it is opened by a child that is `nobody`: nothing that another user wrote is parsed by root, and what
//! may not be written cannot be.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};

use super::Database;
use super::child::{NOBODY, READ_DATABASE, ask};
use super::reader::Reader;
use crate::system::text::one_line;

const FILE: &str = "/nix/var/nix/db/db.sqlite";
/// `quick_check` reads all of a database, which may be gigabytes on a slow disk.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What is inside.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Contents {
    integrity: String,
    valid_paths: Option<u64>,
}

pub(crate) fn gather(reader: &Reader<'_>) -> Option<Database> {
    let path = Path::new(FILE);
    let file = reader.path_owner(path)?;
    let size = |path: &Path| reader.machine.lstat(path).map_or(0, |metadata| metadata.size());
    let schema = reader.text("/nix/var/nix/db/schema").and_then(|text| text.trim().parse().ok());
    let contents = contents(reader, (file.uid, file.gid)).map_err(|why| reader.note(FILE, why)).ok();
    Some(Database {
        path: path.to_owned(),
        schema,
        valid_paths: contents.as_ref().and_then(|contents| contents.valid_paths),
        integrity: contents.map(|contents| one_line(&contents.integrity)),
        bytes: size(path) + size(&beside(path, "-wal")),
        uid: file.uid,
    })
}

fn contents(reader: &Reader<'_>, owner: (u32, u32)) -> Result<Contents, String> {
    if !reader.machine.is_live() {
        return read_here(
            &reader.machine.host(Path::new(FILE)).map_err(|error| super::reader::reason(&error))?,
        );
    }
    let read = |user| ask(reader.machine.helper(), user, &[READ_DATABASE, FILE], TIMEOUT);
    let said = read((NOBODY, NOBODY));
    // Where others may not read it, its owner may.
    match said {
        Err(why) if why.starts_with(NOT_PERMITTED) && nix::unistd::geteuid().is_root() => read(owner),
        said => said,
    }
}

const NOT_PERMITTED: &str = "permission denied";

/// Reads the database at `path` in this process.
pub(crate) fn read_here(path: &Path) -> Result<Contents, String> {
    // Its owner may have put a FIFO in its place, which nobody ever writes to.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let is_file = file.and_then(|file| Ok(file.metadata()?.is_file()));
    if !is_file.map_err(|error| super::reader::reason(&error))? {
        return Err("it is not a regular file".to_owned());
    }
    let uri = uri(path)?;
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri, flags).map_err(|error| error.to_string())?;
    query(&connection).or_else(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => {
            Ok(Contents { integrity: error.to_string(), valid_paths: None })
        }
        _ => Err(error.to_string()),
    })
}

fn query(connection: &Connection) -> rusqlite::Result<Contents> {
    connection.busy_timeout(Duration::from_secs(10))?;
    // What an attacker put into the schema is not executed, and nothing spills into a temporary file.
    connection.execute_batch(
        "PRAGMA trusted_schema = off; PRAGMA temp_store = memory; PRAGMA cell_size_check = on;",
    )?;
    let integrity: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    let valid_paths = connection
        .query_row("SELECT count(*) FROM ValidPaths", [], |row| row.get(0))
        .map(Some)
        .or_else(|error| if integrity == "ok" { Err(error) } else { Ok(None) })?;
    Ok(Contents { integrity, valid_paths })
}

/// The address that reads all of the database and writes nothing.
fn uri(path: &Path) -> Result<String, String> {
    let size = |suffix| match std::fs::symlink_metadata(beside(path, suffix)) {
        Ok(metadata) => Ok(Some(metadata.size())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(super::reader::reason(&error)),
    };
    let how = match (size("-wal")?, size("-shm")?) {
        (Some(_), Some(_)) => "mode=ro&readonly_shm=1",
        (None | Some(0), _) => "immutable=1",
        (Some(_), None) => {
            return Err(
                "its write-ahead log has no index; it can be read after the daemon has opened it".to_owned()
            );
        }
    };
    let escaped = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    Ok(format!("file:{escaped}?{how}"))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn database(directory: &Path, paths: usize) -> (PathBuf, Connection) {
        let path = directory.join("db#1?.sqlite");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", "wal").unwrap();
        connection.execute_batch("CREATE TABLE ValidPaths (id INTEGER PRIMARY KEY, path TEXT)").unwrap();
        for _ in 0..paths {
            connection.execute("INSERT INTO ValidPaths (path) VALUES ('/nix/store/x')", []).unwrap();
        }
        (path, connection)
    }

    fn snapshot(directory: &Path) -> Vec<(String, Vec<u8>, std::time::SystemTime)> {
        let mut files: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let changed = entry.metadata().unwrap().modified().unwrap();
                (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap(), changed)
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn rows_that_are_only_in_the_log_count_and_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (path, writer) = database(dir.path(), 3);
        let before = snapshot(dir.path());
        assert_eq!(before.len(), 3, "a log and its index are there");
        let expected = Contents { integrity: "ok".to_owned(), valid_paths: Some(3) };
        assert_eq!(read_here(&path).unwrap(), expected);
        // Within one process SQLite shares the writer's index, so that one may change here; see the next test.
        let after = snapshot(dir.path());
        assert!(after.len() == 3 && after[0] == before[0] && after[2] == before[2]);

        drop(writer);
        let before = snapshot(dir.path());
        assert_eq!(before.len(), 1, "the last writer took them away");
        assert_eq!(read_here(&path).unwrap(), expected);
        assert!(snapshot(dir.path()) == before);
    }

    #[test]
    fn a_log_left_by_a_crash_counts_too() {
        let dir = tempfile::tempdir().unwrap();
        let (path, writer) = database(dir.path(), 2);
        let crashed = tempfile::tempdir().unwrap();
        for (name, bytes, _) in snapshot(dir.path()) {
            fs::write(crashed.path().join(name), bytes).unwrap();
        }
        drop(writer);
        let path = crashed.path().join(path.file_name().unwrap());
        let before = snapshot(crashed.path());
        assert_eq!(read_here(&path).unwrap().valid_paths, Some(2));
        assert!(snapshot(crashed.path()) == before, "no byte, no time stamp");
        fs::remove_file(beside(&path, "-shm")).unwrap();
        let error = read_here(&path).unwrap_err();
        assert!(error.contains("write-ahead log"), "{error}");
    }

    #[test]
    fn damage_is_told_not_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let (path, writer) = database(dir.path(), 2000);
        drop(writer);
        let mut bytes = fs::read(&path).unwrap();
        for byte in &mut bytes[8192..12000] {
            *byte = 0x5a;
        }
        fs::write(&path, &bytes).unwrap();
        assert_ne!(read_here(&path).unwrap().integrity, "ok");
        fs::write(&path, "this is no database at all, but long enough to have a header".repeat(9)).unwrap();
        let contents = read_here(&path).unwrap();
        assert!(contents.integrity.contains("not a database"), "{contents:?}");
    }

    #[test]
    fn a_fifo_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db.sqlite");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read_here(&path).unwrap_err(), "it is not a regular file");
    }
}
