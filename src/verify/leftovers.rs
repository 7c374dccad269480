//! Store paths that a check made, and their end.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::CheckError;
use crate::daemon::{Connection, DaemonError, Root};
use crate::system::checkpoint;
use crate::system::pause::Pause;
use crate::types::StorePath;

/// How long the daemon may take to let go of the temporary roots of a connection that has ended.
pub(super) const LETTING_GO: Duration = Duration::from_secs(20);
/// How long it may take to say of all paths whether they are there. Each question has a limit of its own; the daemon is another user's,
/// and could use that up for every path.
const ASKING: Duration = Duration::from_secs(60);
/// How many paths a message names.
const NAMED: usize = 5;
/// What becomes of a path that could not be removed.
pub(super) const REMEDY: &str = "the next collection of garbage will take them";

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
        roots_of(socket, &[])?;
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
            let there = still_there(&paths, Instant::now() + ASKING, |path| {
                Ok(connection.is_valid(path)? || path.to_path().symlink_metadata().is_ok())
            })?;
            if there.is_empty() {
                return Ok(());
            }
            match once_sure(|| connection.delete(&there)) {
                // The next round looks whether they are gone.
                Ok(()) if Instant::now() < deadline => checkpoint::inside("paths-deleted"),
                Ok(()) => {
                    return Err(CheckError::Other(format!("{} was deleted but is still there", there[0])));
                }
                Err(error) if still_alive(&error) && Instant::now() < deadline => pause.wait(),
                Err(error) => return Err(left_behind(&there, &error.to_string())),
            }
        }
    }
}

/// Those of `paths` of which `is_there` says so.
fn still_there(
    paths: &[StorePath],
    deadline: Instant,
    mut is_there: impl FnMut(&StorePath) -> Result<bool, CheckError>,
) -> Result<Vec<StorePath>, CheckError> {
    let mut there = Vec::new();
    for (at, path) in paths.iter().enumerate() {
        if Instant::now() >= deadline {
            return Err(left_behind(&paths[at..], "the daemon takes too long to say whether they are there"));
        }
        if is_there(path)? {
            there.push(path.clone());
        }
    }
    Ok(there)
}

fn left_behind(paths: &[StorePath], why: &str) -> CheckError {
    let names = paths.iter().take(NAMED).map(StorePath::to_string).collect::<Vec<_>>().join(" ");
    let more = match paths.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    CheckError::Other(format!("left behind: {names}{more}: {why}; {REMEDY}"))
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        // Only after another error, which is the one to report.
        let _ = self.remove_all();
    }
}

/// The roots of these paths, once the scanner is sure of them.
pub(super) fn roots_of(socket: &Path, paths: &[StorePath]) -> Result<Vec<Vec<Root>>, DaemonError> {
    once_sure(|| Connection::open(socket)?.roots_of(paths))
}

/// Whether the daemon will not delete a path because something keeps it alive (`LocalStore::collectGarbage`).
pub(super) fn still_alive(error: &DaemonError) -> bool {
    matches!(error, DaemonError::Refused { message, .. } if message.contains("still alive"))
}

/// Asks again while the scanner is not sure (`DOUBT` of `root-scan/src/answer.rs`), for a time: on a busy machine something may not
/// answer it in time, or processes may come and go too fast.
pub(super) fn once_sure<T>(mut ask: impl FnMut() -> Result<T, DaemonError>) -> Result<T, DaemonError> {
    let deadline = Instant::now() + LETTING_GO;
    let mut pause = Pause::up_to(Duration::from_secs(1));
    loop {
        match ask() {
            Err(DaemonError::Refused { message, .. })
                if message.contains("nix-root-scan is not sure") && Instant::now() < deadline =>
            {
                pause.wait();
            }
            answer => return answer,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scanner_in_doubt_is_asked_again_and_nobody_else() {
        let refused =
            |message: &str| DaemonError::Refused { operation: "listing", message: message.to_owned() };
        let mut answers =
            vec![Ok(3), Err(refused("store path '!nix-root-scan is not sure that it saw every root"))];
        assert_eq!(once_sure(|| answers.pop().unwrap()).unwrap(), 3);
        let mut answers = vec![Ok(3), Err(refused("still alive"))];
        assert!(once_sure(|| answers.pop().unwrap()).is_err());
    }

    #[test]
    fn a_daemon_that_takes_its_time_for_each_path_is_asked_no_longer() {
        let path = |number: usize| StorePath::from_base_name(&format!("{number:032}-a")).unwrap();
        let paths: Vec<_> = (0..10).map(path).collect();
        let mut asked = 0;
        let soon = Instant::now() + Duration::from_secs(1);
        let error = still_there(&paths, soon, |path| {
            asked += 1;
            if *path == paths[1] {
                std::thread::sleep(soon.saturating_duration_since(Instant::now()));
            }
            Ok(true)
        });
        let error = error.unwrap_err().to_string();
        assert_eq!(asked, 2);
        assert!(error.contains(&format!("{} and 3 more: the daemon takes too long", path(6))), "{error}");
        assert_eq!(still_there(&paths, Instant::now() + ASKING, |it| Ok(*it != paths[3])).unwrap().len(), 9);
    }
}
