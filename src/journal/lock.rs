//! One run at a time.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Why the lock could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another run holds it.
    #[error("another nix-unroot run is in progress (it holds {0}); wait for it to end")]
    Held(PathBuf),
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
            Err(TryLockError::WouldBlock) => Err(LockError::Held(path)),
            Err(TryLockError::Error(reason)) => Err(LockError::Io { path, reason }),
        }
    }

    /// Whether another run holds the lock now, found without making a file.
    pub fn is_held(journal: &Path) -> bool {
        File::open(lock_path(journal))
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }
}

fn lock_path(journal: &Path) -> PathBuf {
    journal.with_file_name("lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_is_refused_until_the_first_ends() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("journal.sqlite");
        assert!(!Lock::is_held(&journal));
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "asking makes no file");
        let lock = Lock::take(&journal).unwrap();
        assert!(matches!(Lock::take(&journal), Err(LockError::Held(_))));
        assert!(Lock::is_held(&journal));
        drop(lock);
        Lock::take(&journal).unwrap();
    }
}
