//! Room that is kept for the journal, so that recording a step cannot fail because somebody filled the disk.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::system::files::sync_parent;
use crate::system::kernel;

/// Bytes kept. A run of the longest plan writes less than 2 MiB to the journal, its log and its copy together; the rest
/// is for undoing, which writes files anew.
pub const SIZE: u64 = 8 << 20;
/// Bytes given back at a time.
pub const PORTION: u64 = 1 << 20;

/// A file beside the journal that holds blocks of the file system, and gives them back when there are no others.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// That of the journal at `journal`.
    pub fn of(journal: &Path) -> Self {
        Self { path: journal.with_extension("reserve") }
    }

    /// Takes [`SIZE`] bytes of the file system, if it has not got them.
    ///
    /// # Errors
    /// When there is no such room; then the reserve is what it was.
    pub fn fill(&self) -> io::Result<()> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        let held = file.metadata()?.len();
        if held >= SIZE {
            return Ok(());
        }
        if let Err(error) = kernel::take_blocks(&file, SIZE) {
            file.set_len(held)?;
            return Err(error);
        }
        file.sync_all()
    }

    /// Gives a portion back; false when nothing is left.
    pub fn release(&self) -> bool {
        let give = || -> io::Result<bool> {
            let file = OpenOptions::new().write(true).open(&self.path)?;
            let held = file.metadata()?.len();
            file.set_len(held.saturating_sub(PORTION))?;
            // Freed blocks can be used once the file system has recorded that they are free.
            file.sync_all()?;
            Ok(held > 0)
        };
        give().unwrap_or(false)
    }

    /// Gives all of it back, when no run needs it any more.
    pub fn remove(&self) {
        // A reserve that stays costs room and nothing else.
        if fs::remove_file(&self.path).is_ok() {
            let _ = sync_parent(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn it_holds_blocks_and_gives_them_back_by_portions() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::of(&dir.path().join("journal.sqlite"));
        assert!(!reserve.release(), "there is none yet");
        reserve.fill().unwrap();
        reserve.fill().unwrap();
        assert!(fs::metadata(&reserve.path).unwrap().blocks() * 512 >= SIZE, "they are really taken");
        let mut portions = 0;
        while reserve.release() {
            portions += 1;
        }
        assert_eq!(portions, SIZE / PORTION);
        reserve.remove();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
