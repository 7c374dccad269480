//! Nix's database: checked and copied while it is root's, opened and checked by its new owner afterwards.
//!
//! Once the `nix` user owns the database, root does not parse it any more: a child with that user's uid does.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rusqlite::{Connection, OpenFlags};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host, gid_of, show, uid_of};
use crate::system::{command, files, kernel, watched};

/// How long another process may hold the database before we give up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a check may take, whatever the size: minutes for a large database, without end for one that its owner made so.
const CHECK_TIME: Duration = Duration::from_secs(30 * 60);
/// As much more for each GiB, since a cold disk may be asked for every row by itself; up to [`LONGEST_CHECK`], as a size may be a lie, too.
const CHECK_TIME_OF_A_GIB: Duration = Duration::from_secs(10 * 60);
/// The longest time for a check.
const LONGEST_CHECK: Duration = Duration::from_secs(3 * 60 * 60);

/// What SQLite adds to the name of a database for the files of its write-ahead log.
const LOG: [&str; 2] = ["-wal", "-shm"];

/// Checks the database, folds its write-ahead log in, and keeps a copy.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackUpDatabase {
    /// The database; a missing one (Nix was never used) is fine.
    pub path: PathBuf,
    /// Whose it is by now, when its owner has checked it in an earlier step: then root copies its bytes and reads nothing in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked_by: Option<String>,
}

impl BackUpDatabase {
    fn copy(&self, host: &Host<'_>) -> PathBuf {
        host.backups.join("db.sqlite")
    }

    /// Whether the files of a write-ahead log are beside the database.
    fn has_log(&self) -> bool {
        LOG.iter().any(|end| {
            let mut path = self.path.clone().into_os_string();
            path.push(end);
            fs::symlink_metadata(path).is_ok()
        })
    }
}

impl Act for BackUpDatabase {
    /// Whether there was a write-ahead log; older journals do not say.
    type Before = Option<bool>;

    fn changes(&self) -> String {
        match &self.checked_by {
            Some(user) => format!("keeps a copy of {}, which {user} has checked", show(&self.path)),
            None => format!("checks {}, folds its write-ahead log in, keeps a copy", show(&self.path)),
        }
    }

    fn undone_by(&self) -> String {
        "nothing to undo: the content stays, with all that was built since; the copy is kept".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(!self.path.exists())
    }

    fn capture(&self, _: &Host<'_>) -> Result<Self::Before> {
        Ok(Some(self.has_log()))
    }

    fn apply(&self, host: &Host<'_>, _: &Self::Before) -> Result<()> {
        let owner = fs::symlink_metadata(&self.path)
            .with_context(|| format!("cannot look at {}", show(&self.path)))?;
        match &self.checked_by {
            Some(user) if owner.uid() != uid_of(user)? => {
                bail!("{} does not belong to {user} by now", show(&self.path))
            }
            Some(_) => {}
            None if !owner.is_file() || owner.uid() != 0 => {
                bail!("{} is not a file of root's, and root does not parse what others own", show(&self.path))
            }
            None => check(&self.path)?,
        }
        copy_durably(&self.path, &self.copy(host))
            .with_context(|| format!("cannot copy {} to {}", show(&self.path), host.backups.display()))
    }

    /// A check that was killed leaves its log; where there was none before, it is folded in and goes. Without a copy no later step began, so
    /// what is root's was never anybody else's.
    fn undo(&self, host: &Host<'_>, had_log: &Self::Before) -> Result<()> {
        let is_roots = || fs::symlink_metadata(&self.path).is_ok_and(|it| it.is_file() && it.uid() == 0);
        let is_left = *had_log == Some(false) && !self.copy(host).exists() && self.has_log() && is_roots();
        if is_left && let Err(error) = fold_log(&self.path) {
            host.observer.note(&format!("the log beside {} stays: {error:#}", show(&self.path)));
        }
        Ok(())
    }
}

/// Lets the new owner open the database for writing and check it.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandOverDatabase {
    /// The database.
    pub path: PathBuf,
    /// Its new owner.
    pub user: String,
    /// The owner's group.
    pub group: String,
}

impl HandOverDatabase {
    fn check_as_owner(&self, host: &Host<'_>) -> Result<()> {
        let mut child =
            command::own_child("internal-check-database", uid_of(&self.user)?, gid_of(&self.group)?);
        let time = check_time(fs::symlink_metadata(&self.path).map_or(0, |database| database.len()));
        watched::answer(child.arg(&self.path), Vec::new(), host.limits(time)).with_context(|| {
            let minutes = time.as_secs() / 60;
            format!("{} cannot use {} (its check may take {minutes} minutes)", self.user, show(&self.path))
        })?;
        Ok(())
    }
}

impl Act for HandOverDatabase {
    type Before = ();

    fn changes(&self) -> String {
        format!("opens {} for writing as {} and checks it", show(&self.path), self.user)
    }

    fn undone_by(&self) -> String {
        format!("folds its write-ahead log in as {} and checks it, before root owns it again", self.user)
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(!self.path.exists())
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, host: &Host<'_>, (): &()) -> Result<()> {
        self.check_as_owner(host)
    }

    fn undo(&self, host: &Host<'_>, (): &()) -> Result<()> {
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.uid() == 0) {
            return Ok(());
        }
        // A damaged database, or one whose check never ends, must not keep the machine from going back; the administrator must hear of it.
        if let Err(error) = self.check_as_owner(host) {
            host.check_cancelled()?;
            host.observer.note(&format!(
                "{error:#}; the copy from before the migration is {}",
                host.backups.join("db.sqlite").display()
            ));
        }
        Ok(())
    }
}

/// The child of the action `hand-over-database`: checks the database at `path` with the rights it was started with.
///
/// # Errors
/// When the database cannot be opened for writing, or is damaged.
pub fn child_main(path: &Path) -> Result<()> {
    watched::confine(LONGEST_CHECK, true).context("cannot limit the child that checks the database")?;
    check(path)
}

fn check_time(bytes: u64) -> Duration {
    let gib = u32::try_from(bytes >> 30).unwrap_or(u32::MAX);
    CHECK_TIME_OF_A_GIB.saturating_mul(gib).saturating_add(CHECK_TIME).min(LONGEST_CHECK)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let database = Connection::open_with_flags(path, flags)?;
    database.busy_timeout(BUSY_TIMEOUT)?;
    // Its views, triggers and constraints are the owner's, too, and may call nothing with an effect.
    database.execute_batch("PRAGMA trusted_schema = off;")?;
    Ok(database)
}

/// Opens the database for writing, folds its log in, and checks it whole.
fn check(path: &Path) -> Result<()> {
    let database = fold_log(path)?;
    let context = || format!("cannot check {}", show(path));
    database.execute_batch("BEGIN IMMEDIATE; ROLLBACK;").with_context(context)?;
    let verdict: String =
        database.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).with_context(context)?;
    if verdict != "ok" {
        bail!("{} is damaged ({verdict}): repair it with nix-store --verify before migrating", show(path));
    }
    Ok(())
}

/// Opens the database for writing and folds its log in, which goes when the database is closed.
fn fold_log(path: &Path) -> Result<Connection> {
    let database = open(path).with_context(|| format!("cannot open {}", show(path)))?;
    let context = || format!("cannot fold the log of {} in", show(path));
    let busy: i64 =
        database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).with_context(context)?;
    if busy != 0 {
        bail!("{} is in use by another process: stop what runs nix, and try again", show(path));
    }
    Ok(database)
}

fn copy_durably(from: &Path, to: &Path) -> io::Result<()> {
    // Its directory may be another user's, who could have made anything of it: no link is followed on the way, no FIFO waited for.
    let source = kernel::open_file(from)?;
    let source = File::from(source);
    let length = Some(source.metadata()?).filter(|source| source.is_file()).map(|source| source.len());
    let length = length.ok_or_else(|| io::Error::other("it is not a regular file"))?;
    let room = rustix::fs::statvfs(to.parent().unwrap_or(to))?;
    if length > room.f_bavail.saturating_mul(room.f_frsize) {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let _ = fs::remove_file(to);
    let mut copy: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut source.take(length), &mut copy)?;
    copy.sync_all()?;
    files::sync_parent(to)
}

#[cfg(test)]
mod tests {
    use super::super::test_host::host;
    use super::*;

    fn database(dir: &Path) -> PathBuf {
        let path = dir.join("db.sqlite");
        let database = Connection::open(&path).unwrap();
        database
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1);")
            .unwrap();
        path
    }

    #[test]
    fn the_copy_holds_what_was_in_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        fs::create_dir(&host.backups).unwrap();
        let path = database(dir.path());
        let writer = Connection::open(&path).unwrap();
        writer.execute_batch("INSERT INTO t VALUES (2);").unwrap();
        let action = BackUpDatabase { path, checked_by: None };
        let had_log = action.capture(&host).unwrap();
        action.apply(&host, &had_log).unwrap();
        action.apply(&host, &had_log).unwrap();
        let copy = Connection::open(host.backups.join("db.sqlite")).unwrap();
        let rows: i64 = copy.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 2);
    }

    #[test]
    fn the_log_that_a_killed_check_left_goes_unless_there_was_one() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        for (had_log, copied, goes) in [
            (Some(false), false, true),
            (Some(false), true, false),
            (Some(true), false, false),
            (None, false, false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (host, path) = (host(dir.path()), database(dir.path()));
            fs::create_dir(&host.backups).unwrap();
            if copied {
                fs::write(host.backups.join("db.sqlite"), "").unwrap();
            }
            let killed = Connection::open(&path).unwrap();
            killed.execute_batch("INSERT INTO t VALUES (2);").unwrap();
            // As it is on the disk while the check runs.
            let left = dir.path().join("left");
            fs::create_dir(&left).unwrap();
            for file in ["db.sqlite", "db.sqlite-wal", "db.sqlite-shm"] {
                fs::copy(dir.path().join(file), left.join(file)).unwrap();
            }
            let action = BackUpDatabase { path: left.join("db.sqlite"), checked_by: None };
            assert_eq!(action.capture(&host).unwrap(), Some(true));
            for _ in 0..2 {
                action.undo(&host, &had_log).unwrap();
                let files = if goes { 1 } else { 3 };
                assert_eq!(fs::read_dir(&left).unwrap().count(), files, "{had_log:?} {copied}");
            }
            let rows: i64 = Connection::open(&action.path)
                .unwrap()
                .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
                .unwrap();
            assert_eq!(rows, 2);
        }
        // What journals hold that were written before this was captured.
        assert_eq!(super::super::from_journal::<Option<bool>>("null").unwrap(), None);
    }

    #[test]
    fn damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = database(dir.path());
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..].fill(0xa5);
        fs::write(&path, bytes).unwrap();
        assert!(check(&path).is_err());
    }

    #[test]
    fn a_schema_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let database = open(&database(dir.path())).unwrap();
        let trusted: i64 = database.query_row("PRAGMA trusted_schema", [], |row| row.get(0)).unwrap();
        assert_eq!(trusted, 0);
    }

    #[test]
    fn a_larger_database_gets_more_time_and_none_all_of_it() {
        for (bytes, minutes) in [(0, 30), (5 << 30, 80), (u64::MAX, 180)] {
            assert_eq!(check_time(bytes).as_secs() / 60, minutes);
        }
    }

    #[test]
    fn a_link_is_not_a_database() {
        let dir = tempfile::tempdir().unwrap();
        // Its name is its owner's to choose, and comes before root's eyes.
        let link = dir.path().join("link\u{1b}[2J\n.sqlite");
        std::os::unix::fs::symlink(database(dir.path()), &link).unwrap();
        let error = check(&link).unwrap_err().to_string();
        assert!(error.ends_with("link?[2J?.sqlite"), "{error:?}");
        assert!(BackUpDatabase { path: link, checked_by: None }.apply(&host(dir.path()), &None).is_err());
    }
}
