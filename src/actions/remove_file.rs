//! A file that has to go: another installer's receipt.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::file_state::FileState;
use super::{Act, Host, show};
use crate::system::files;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveFile {
    /// The file or link, in a directory of root's.
    pub path: PathBuf,
}

impl Act for RemoveFile {
    type Before = FileState;

    fn changes(&self) -> String {
        format!("puts {} into the run's backups", show(&self.path))
    }

    fn undone_by(&self) -> String {
        "puts it back".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(self.path.symlink_metadata().is_err())
    }

    fn capture(&self, host: &Host<'_>) -> Result<FileState> {
        FileState::capture(&self.path, host)
    }

    fn apply(&self, _: &Host<'_>, _: &FileState) -> Result<()> {
        files::remove(&self.path).with_context(|| format!("cannot remove {}", show(&self.path)))
    }

    fn undo(&self, host: &Host<'_>, before: &FileState) -> Result<()> {
        before.restore(&self.path, host)
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_host::host;
    use super::*;

    #[test]
    fn a_large_program_goes_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        std::fs::create_dir(&host.backups).unwrap();
        let action = RemoveFile { path: dir.path().join("nix-installer") };
        std::fs::write(&action.path, vec![0xff; 100_000]).unwrap();
        let before = action.capture(&host).unwrap();
        for _ in 0..2 {
            action.apply(&host, &before).unwrap();
        }
        assert!(action.is_done(&host).unwrap());
        action.undo(&host, &before).unwrap();
        assert_eq!(action.capture(&host).unwrap(), before);
    }
}
