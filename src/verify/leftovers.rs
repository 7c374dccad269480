//! Store paths that a check made, and their end.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::CheckError;
use crate::daemon::{Connection, DaemonError};
use crate::system::checkpoint;
use crate::system::pause::Pause;
use crate::types::StorePath;

/// How long the daemon may take to let go of the temporary roots of a connection that has ended.
const LETTING_GO: Duration = Duration::from_secs(20);

/// Store paths to delete. Dropped, it deletes them as well as it can; [`Leftovers::remove`] also says whether it could.
#[derive(Debug)]
pub(super) struct Leftovers {
    socket: PathBuf,
    paths: Vec<StorePath>,
}

impl Leftovers {
    /// Sees to it first that the daemon can tell what is alive: while it cannot, as when the scanner does not answer, it
    /// deletes nothing, and what a check adds would stay.
    pub(super) fn new(socket: &Path) -> Result<Self, CheckError> {
        Connection::open(socket)?.roots_of(&[])?;
        Ok(Self { socket: socket.to_owned(), paths: Vec::new() })
    }

    pub(super) fn push(&mut self, path: StorePath) {
        self.paths.push(path);
    }

    /// Deletes all of them through a new connection and sees that they are gone. The connections that made them must
    /// have ended: they keep them alive.
    pub(super) fn remove(mut self) -> Result<(), CheckError> {
        self.remove_all()
    }

    fn remove_all(&mut self) -> Result<(), CheckError> {
        let paths = std::mem::take(&mut self.paths);
        let deadline = Instant::now() + LETTING_GO;
        let mut pause = Pause::up_to(Duration::from_millis(100));
        loop {
            let mut connection = Connection::open(&self.socket)?;
            let mut there = Vec::new();
            for path in &paths {
                if connection.is_valid(path)? || path.to_path().symlink_metadata().is_ok() {
                    there.push(path.clone());
                }
            }
            if there.is_empty() {
                return Ok(());
            }
            match connection.delete(&there) {
                // The next round looks whether they are gone.
                Ok(()) if Instant::now() < deadline => checkpoint::inside("paths-deleted"),
                Ok(()) => {
                    return Err(CheckError::Other(format!("{} was deleted but is still there", there[0])));
                }
                Err(error) if still_alive(&error) && Instant::now() < deadline => pause.wait(),
                Err(error) => {
                    let names = there.iter().map(StorePath::to_string).collect::<Vec<_>>().join(" ");
                    let remedy = "the next collection of garbage will take them";
                    return Err(CheckError::Other(format!("left behind: {names}: {error}; {remedy}")));
                }
            }
        }
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        // Only after another error, which is the one to report.
        let _ = self.remove_all();
    }
}

/// Whether the daemon will not delete a path because something keeps it alive (`LocalStore::collectGarbage`).
pub(super) fn still_alive(error: &DaemonError) -> bool {
    matches!(error, DaemonError::Refused { message, .. } if message.contains("still alive"))
}

/// Sixteen characters that nobody can guess, fit for a name.
pub(super) fn unique() -> Result<String, CheckError> {
    let mut bytes = [0; 8];
    let source = PathBuf::from("/dev/urandom");
    std::fs::File::open(&source)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(CheckError::io("cannot read", &source))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
