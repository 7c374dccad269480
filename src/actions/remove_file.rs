//! A file or a link goes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conflict::{Scan, Wrote, ensure_untouched, undo_placed};
use super::drift::{self, Aspect, Drift};
use super::file_state::FileState;
use super::{Act, Host, show};
use crate::system::files;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveFile {
    /// The file or link.
    pub path: PathBuf,
}

impl Act for RemoveFile {
    type Before = FileState;

    fn changes(&self) -> String {
        format!("removes {}", show(&self.path))
    }

    fn undone_by(&self) -> String {
        "puts it back".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(fs::symlink_metadata(&self.path).is_err())
    }

    fn capture(&self, host: &Host<'_>) -> Result<FileState> {
        FileState::capture(&self.path, host)
    }

    fn apply(&self, host: &Host<'_>, before: &FileState) -> Result<()> {
        ensure_untouched(&self.path, before, &Wrote::Nothing, host)?;
        files::remove(&self.path).with_context(|| format!("cannot remove {}", show(&self.path)))
    }

    fn undo(&self, host: &Host<'_>, before: &FileState) -> Result<()> {
        undo_placed(&self.path, before, &Wrote::Nothing, host)
    }

    fn look_for_conflicts(&self, scan: &mut Scan<'_>, before: &FileState) -> Result<()> {
        scan.placed(&self.path, before, Wrote::Nothing)
    }

    fn look_for_drift(&self, host: &Host<'_>, before: Option<&FileState>) -> Result<Vec<Drift>> {
        Ok(drift::of_placed(&self.path, before, &Wrote::Nothing, host)?.into_iter().collect())
    }

    fn decides(&self, path: &Path, aspect: Aspect) -> bool {
        path == self.path && aspect != Aspect::Runs
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_host::{conflicts, host};
    use super::*;

    #[test]
    fn it_goes_and_comes_back_and_what_took_its_place_is_a_conflict() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let action = RemoveFile { path: dir.path().join("file") };
        assert!(action.is_done(&host).unwrap());
        fs::write(&action.path, "old\n").unwrap();
        let before = action.capture(&host).unwrap();
        for _ in 0..2 {
            action.apply(&host, &before).unwrap();
            assert!(action.is_done(&host).unwrap());
        }
        assert!(conflicts(dir.path(), &action, &before).is_empty());
        for _ in 0..2 {
            action.undo(&host, &before).unwrap();
            assert_eq!(action.capture(&host).unwrap(), before);
        }
        fs::write(&action.path, "new\n").unwrap();
        assert_eq!(conflicts(dir.path(), &action, &before).len(), 1);
        assert!(action.undo(&host, &before).is_err());
        assert!(action.apply(&host, &before).is_err(), "a resumed run does not remove it");
        assert_eq!(fs::read_to_string(&action.path).unwrap(), "new\n");
    }
}
