//! Store paths that a run added: which those are, and taking them away again.
//!
//! The database belongs to the store's owner by then, so a child with that user's rights looks into it and changes it; root
//! only removes files, by names that it has parsed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{CHILD_TIME, Host, gid_of, show, uid_of};
use crate::system::files::{self, Ownership};
use crate::system::{command, trees, watched};
use crate::types::StorePath;

/// The command of the child.
pub const COMMAND: &str = "internal-added-paths";
/// Where Nix's database lies.
const DATABASE: &str = "/nix/var/nix/db/db.sqlite";
/// How long another process may hold the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Who owns the store.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The user.
    pub user: &'a str,
    /// Its group.
    pub group: &'a str,
}

impl Owner<'_> {
    /// The number of the newest valid path; 0 where there is no database yet.
    pub fn last_row(&self, host: &Host<'_>) -> Result<i64> {
        self.ask(host, &Question::LastRow).and_then(|answer| match answer {
            Answer::Row(row) => Ok(row),
            Answer::Paths(_) => bail!("the child answered another question"),
        })
    }

    /// Those of `paths` that the database does not know.
    pub fn unknown(&self, host: &Host<'_>, paths: &BTreeSet<StorePath>) -> Result<BTreeSet<StorePath>> {
        self.paths(host, &Question::Unknown(paths.clone()))
    }

    /// Writes down, under `key`, that what is in the database by now was added by this run.
    pub fn mark(&self, host: &Host<'_>, key: &str) -> Result<()> {
        keep(&mark_file(host, key), &self.last_row(host)?)
    }

    /// Takes away what was added after the row `after` and before [`Owner::mark`], in the database and in `store`, except
    /// what others refer to by now. The list is written down before the first change, so this can be called again after a crash.
    ///
    /// What cannot be taken away stays, and is told: it does no harm, and a damaged database must not keep a machine from going
    /// back.
    ///
    /// # Errors
    /// When the run is to stop.
    pub fn withdraw(&self, host: &Host<'_>, key: &str, after: i64, store: &Path) -> Result<()> {
        if let Err(error) = self.try_to_withdraw(host, key, after, store) {
            host.check_cancelled()?;
            host.observer.note(&format!("store paths that came along stay where they are: {error:#}"));
        }
        Ok(())
    }

    fn try_to_withdraw(&self, host: &Host<'_>, key: &str, after: i64, store: &Path) -> Result<()> {
        let file = host.backups.join(format!("withdrawn-{key}.json"));
        let paths: BTreeSet<StorePath> = match kept(&file)? {
            Some(paths) => paths,
            None => {
                // A step that died before its mark left nobody the time to add anything else.
                let up_to = kept(&mark_file(host, key))?.map_or_else(|| self.last_row(host), Ok)?;
                let paths = self.paths(host, &Question::Removable { after, up_to })?;
                keep(&file, &paths)?;
                paths
            }
        };
        self.paths(host, &Question::Forget(paths.clone()))?;
        paths.iter().try_for_each(|path| remove_tree(&store.join(path.base_name())))
    }

    fn paths(&self, host: &Host<'_>, question: &Question) -> Result<BTreeSet<StorePath>> {
        match self.ask(host, question)? {
            Answer::Paths(paths) => Ok(paths),
            Answer::Row(_) => bail!("the child answered another question"),
        }
    }

    fn ask(&self, host: &Host<'_>, question: &Question) -> Result<Answer> {
        let mut child = command::own_child(COMMAND, uid_of(self.user)?, gid_of(self.group)?);
        let question = serde_json::to_vec(question)?;
        let answer = watched::answer(child.arg(DATABASE), question, host.limits(CHILD_TIME))
            .with_context(|| format!("{} cannot use {DATABASE}", self.user))?;
        serde_json::from_slice(&answer).context("the child gave no answer")
    }
}

/// What the child is asked.
#[derive(Debug, Serialize, Deserialize)]
enum Question {
    LastRow,
    Unknown(BTreeSet<StorePath>),
    /// Which of the paths between two rows nothing else refers to. Rows get growing numbers (`AUTOINCREMENT` in Nix's
    /// `src/libstore/schema.sql`).
    Removable {
        after: i64,
        up_to: i64,
    },
    /// They are no longer valid.
    Forget(BTreeSet<StorePath>),
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Row(i64),
    Paths(BTreeSet<StorePath>),
}

/// The child: answers the question on its standard input from the database that it is given.
pub fn child_main(args: &[OsString]) -> u8 {
    let work = || -> Result<()> {
        let [database] = args else { bail!("{COMMAND} takes a database") };
        watched::confine(CHILD_TIME, true).context("cannot limit the child that looks into the database")?;
        let question = serde_json::from_reader(io::stdin().lock()).context("cannot read the question")?;
        let answer = answer(Path::new(database), &question)?;
        serde_json::to_writer(io::stdout().lock(), &answer).context("cannot answer")
    };
    match work() {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error:#}");
            1
        }
    }
}

fn answer(path: &Path, question: &Question) -> Result<Answer> {
    if !path.exists() {
        return Ok(match question {
            Question::LastRow => Answer::Row(0),
            Question::Unknown(paths) => Answer::Paths(paths.clone()),
            Question::Removable { .. } | Question::Forget(_) => Answer::Paths(BTreeSet::new()),
        });
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut database = Connection::open_with_flags(path, flags).context("cannot open the database")?;
    database.busy_timeout(BUSY_TIMEOUT)?;
    database.execute_batch("PRAGMA trusted_schema = off; PRAGMA foreign_keys = on;")?;
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let answer = match question {
        Question::LastRow => {
            Answer::Row(
                transaction.query_row("SELECT coalesce(max(id), 0) FROM ValidPaths", [], |row| row.get(0))?,
            )
        }
        Question::Unknown(paths) => {
            let mut known = transaction.prepare("SELECT 1 FROM ValidPaths WHERE path = ?")?;
            let mut unknown = BTreeSet::new();
            for path in paths {
                if !known.exists([path.to_string()])? {
                    unknown.insert(path.clone());
                }
            }
            Answer::Paths(unknown)
        }
        Question::Removable { after, up_to } => Answer::Paths(removable(&transaction, *after, *up_to)?),
        Question::Forget(paths) => {
            let id = "(SELECT id FROM ValidPaths WHERE path = ?)";
            // References among them first: a path that is referred to cannot go.
            for delete in [
                format!("DELETE FROM Refs WHERE referrer = {id}"),
                "DELETE FROM ValidPaths WHERE path = ?".to_owned(),
            ] {
                let mut delete = transaction.prepare(&delete)?;
                for path in paths {
                    delete.execute([path.to_string()])?;
                }
            }
            Answer::Paths(paths.clone())
        }
    };
    transaction.commit()?;
    Ok(answer)
}

/// The added paths, without those that a path from elsewhere refers to, directly or through others.
fn removable(database: &Connection, after: i64, up_to: i64) -> Result<BTreeSet<StorePath>> {
    let mut statement = database.prepare(
        "WITH RECURSIVE kept(id) AS (
             SELECT reference FROM Refs WHERE NOT (referrer > ?1 AND referrer <= ?2)
             UNION SELECT Refs.reference FROM Refs JOIN kept ON Refs.referrer = kept.id)
         SELECT path FROM ValidPaths WHERE id > ?1 AND id <= ?2 AND id NOT IN kept",
    )?;
    let paths = statement.query_map([after, up_to], |row| row.get::<_, String>(0))?;
    paths.map(|path| StorePath::try_from(path?).map_err(anyhow::Error::msg)).collect()
}

/// Removes a file, a link or a directory with what it holds; nothing there is fine.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    trees::remove(path).with_context(|| format!("cannot remove {}", show(path)))
}

/// A file of the run's backups that says up to which row a step added paths.
fn mark_file(host: &Host<'_>, key: &str) -> PathBuf {
    host.backups.join(format!("added-{key}.json"))
}

fn keep(file: &Path, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value).context("cannot write down what was added")?;
    files::replace(file, &bytes, Ownership::root(0o600))
        .with_context(|| format!("cannot write {}", show(file)))
}

fn kept<T: DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    match fs::read(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => {
            let bytes = other.with_context(|| format!("cannot read {}", show(file)))?;
            serde_json::from_slice(&bytes)
                .map(Some)
                .with_context(|| format!("{} is not as it was written", show(file)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::test_host::host;
    use super::*;

    /// The tables of Nix's `src/libstore/schema.sql` as far as they matter here.
    const SCHEMA: &str = "
        CREATE TABLE ValidPaths (id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, path TEXT UNIQUE NOT NULL);
        CREATE TABLE Refs (referrer INTEGER NOT NULL, reference INTEGER NOT NULL, PRIMARY KEY (referrer, reference),
            FOREIGN KEY (referrer) REFERENCES ValidPaths(id) ON DELETE CASCADE,
            FOREIGN KEY (reference) REFERENCES ValidPaths(id) ON DELETE RESTRICT);";

    fn path(number: usize) -> StorePath {
        StorePath::from_base_name(&format!("{}-p{number}", "0".repeat(32))).unwrap()
    }

    /// Six paths: 1 and 2 were there, 3 to 5 were added, 6 came later. 3 refers to itself and to 4 and 1, and 6 to 5.
    fn database(dir: &Path) -> PathBuf {
        let file = dir.join("db.sqlite");
        let database = Connection::open(&file).unwrap();
        database.execute_batch(SCHEMA).unwrap();
        for number in 1..=6 {
            database.execute("INSERT INTO ValidPaths (path) VALUES (?)", [path(number).to_string()]).unwrap();
        }
        for (referrer, reference) in [(3, 3), (3, 4), (3, 1), (2, 1), (6, 5)] {
            database.execute("INSERT INTO Refs VALUES (?, ?)", [referrer, reference]).unwrap();
        }
        file
    }

    fn paths(numbers: &[usize]) -> BTreeSet<StorePath> {
        numbers.iter().map(|number| path(*number)).collect()
    }

    fn asked(file: &Path, question: &Question) -> BTreeSet<StorePath> {
        match answer(file, question).unwrap() {
            Answer::Paths(paths) => paths,
            Answer::Row(row) => panic!("row {row}"),
        }
    }

    #[test]
    fn what_was_added_goes_unless_somebody_needs_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = database(dir.path());
        assert!(matches!(answer(&file, &Question::LastRow).unwrap(), Answer::Row(6)));
        let removable = asked(&file, &Question::Removable { after: 2, up_to: 5 });
        assert_eq!(removable, paths(&[3, 4]), "6 needs 5");
        for _ in 0..2 {
            asked(&file, &Question::Forget(removable.clone()));
        }
        assert_eq!(asked(&file, &Question::Unknown(paths(&[1, 2, 3, 4, 5, 6]))), paths(&[3, 4]));
        assert_eq!(asked(&file, &Question::Removable { after: 0, up_to: 6 }), paths(&[1, 2, 5, 6]));
    }

    #[test]
    fn what_an_added_path_of_use_needs_stays_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = database(dir.path());
        let database = Connection::open(&file).unwrap();
        database.execute("INSERT INTO Refs VALUES (6, 3)", []).unwrap();
        assert_eq!(asked(&file, &Question::Removable { after: 2, up_to: 5 }), paths(&[]));
    }

    #[test]
    fn a_run_that_is_to_stop_does_not_count_them_as_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let cancelled = AtomicBool::new(true);
        let host = Host { cancelled: &cancelled, ..host(dir.path()) };
        // The child is this test, which answers nothing of use.
        let owner = Owner { user: "root", group: "root" };
        assert!(owner.withdraw(&host, "x", 0, dir.path()).is_err());
        cancelled.store(false, Ordering::Relaxed);
        owner.withdraw(&host, "x", 0, dir.path()).unwrap();
    }

    #[test]
    fn what_an_owner_made_too_deep_to_recurse_goes_and_links_lead_nowhere() {
        use rustix::fs::{Mode, OFlags, mkdirat, openat};
        let dir = tempfile::tempdir().unwrap();
        let (top, outside) = (dir.path().join("top"), dir.path().join("outside"));
        for path in [&top, &outside] {
            fs::create_dir(path).unwrap();
        }
        symlink(&outside, top.join("link")).unwrap();
        let mut deep = std::os::fd::OwnedFd::from(fs::File::open(&top).unwrap());
        for _ in 0..4_000 {
            mkdirat(&deep, "d", Mode::RWXU).unwrap();
            deep = openat(&deep, "d", OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
        }
        fs::write(dir.path().join("file"), "").unwrap();
        symlink(&outside, dir.path().join("link")).unwrap();
        let remove = || {
            for name in ["top", "file", "link", "top"] {
                remove_tree(&dir.path().join(name)).unwrap();
                assert!(dir.path().join(name).symlink_metadata().is_err(), "{name}");
            }
        };
        // A small stack, for a machine on which a process may have descriptors enough.
        std::thread::scope(|scope| {
            let small = std::thread::Builder::new().stack_size(256 << 10);
            small.spawn_scoped(scope, remove).unwrap().join().unwrap();
        });
        assert!(outside.is_dir());
    }

    #[test]
    fn without_a_database_nothing_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("missing.sqlite");
        assert!(matches!(answer(&file, &Question::LastRow).unwrap(), Answer::Row(0)));
        assert_eq!(asked(&file, &Question::Unknown(paths(&[1]))), paths(&[1]));
        assert_eq!(asked(&file, &Question::Removable { after: 0, up_to: 9 }), paths(&[]));
        assert!(!file.exists());
    }
}
