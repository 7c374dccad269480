//! One run at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::system::text::printable;

/// Why the lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another run holds it.
    #[error("another nix-unroot run is in progress ({by}holds {path}); wait for it to end")]
    Held {
        /// The lock file.
        path: PathBuf,
        /// Who has it open, for people; ends with a space.
        by: String,
    },
    /// The file could not be opened or locked.
    #[error("cannot lock {path}: {reason}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
}

/// The lock of a run. The kernel gives it back when the process ends, however it ends: the file itself means
/// nothing and is never to be deleted by hand.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock beside the journal, without waiting; makes their directory when it is not there.
    ///
    /// # Errors
    /// When another run holds it, or the file cannot be made.
    pub fn take(journal: &Path) -> Result<Self, LockError> {
        super::prepare_directory(journal)
            .map_err(|error| LockError::Io { path: journal.to_owned(), reason: io::Error::other(error) })?;
        let path = lock_path(journal);
        let io = |reason| LockError::Io { path: path.clone(), reason };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        match file.try_lock() {
            Ok(()) => {
                // Children hold it too: when this process is killed, an account tool that it started may still be at work,
                // and the next run must wait for that.
                fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|errno| io(errno.into()))?;
                Ok(Self { _file: file })
            }
            Err(TryLockError::WouldBlock) => Err(LockError::Held { by: who_has(&path), path }),
            Err(TryLockError::Error(reason)) => Err(LockError::Io { path, reason }),
        }
    }

    /// Whether another run holds the lock now, found without making a file.
    pub fn is_held(journal: &Path) -> bool {
        File::open(lock_path(journal))
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }
}

/// The processes that have the file open: the run, or what a run that was killed left at work. Without `/proc`, nobody is named.
fn who_has(path: &Path) -> String {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let has_it = |process: &Path| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        open.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| file == real)
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        (pid != std::process::id() && has_it(&entry.path()))
            .then(|| format!("process {pid} ({})", printable(name.trim())))
    });
    let all: Vec<_> = processes.collect();
    if all.is_empty() { "it ".to_owned() } else { format!("{} ", all.join(", ")) }
}

fn lock_path(journal: &Path) -> PathBuf {
    journal.with_file_name("lock")
}
