//! A symbolic link: a masked or an enabled unit.

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
pub struct PutSymlink {
    /// The link.
    pub path: PathBuf,
    /// Where it points.
    pub target: PathBuf,
}

impl Act for PutSymlink {
    type Before = FileState;

    fn changes(&self) -> String {
        format!("links {} to {}", show(&self.path), show(&self.target))
    }

    fn undone_by(&self) -> String {
        "puts back what was there, or removes the link".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(fs::read_link(&self.path).is_ok_and(|target| target == self.target))
    }

    fn capture(&self, host: &Host<'_>) -> Result<FileState> {
        FileState::capture(&self.path, host)
    }

    fn apply(&self, host: &Host<'_>, before: &FileState) -> Result<()> {
        ensure_untouched(&self.path, before, &self.wrote(), host)?;
        files::replace_with_symlink(&self.path, &self.target)
            .with_context(|| format!("cannot link {} to {}", show(&self.path), show(&self.target)))
    }

    fn undo(&self, host: &Host<'_>, before: &FileState) -> Result<()> {
        undo_placed(&self.path, before, &self.wrote(), host)
    }

    fn look_for_conflicts(&self, scan: &mut Scan<'_>, before: &FileState) -> Result<()> {
        scan.placed(&self.path, before, self.wrote())
    }

    fn look_for_drift(&self, host: &Host<'_>, before: Option<&FileState>) -> Result<Vec<Drift>> {
        Ok(drift::of_placed(&self.path, before, &self.wrote(), host)?.into_iter().collect())
    }

    fn decides(&self, path: &Path, aspect: Aspect) -> bool {
        path == self.path && aspect != Aspect::Runs
    }
}

impl PutSymlink {
    fn wrote(&self) -> Wrote {
        Wrote::Link(self.target.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_host::host;
    use super::*;

    #[test]
    fn a_resumed_run_does_not_write_over_what_somebody_put_there() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let action = PutSymlink { path: dir.path().join("unit"), target: "/dev/null".into() };
        fs::write(&action.path, "a unit").unwrap();
        let before = action.capture(&host).unwrap();
        for _ in 0..2 {
            action.apply(&host, &before).unwrap();
            assert!(action.is_done(&host).unwrap());
        }
        fs::remove_file(&action.path).unwrap();
        fs::write(&action.path, "theirs").unwrap();
        action.apply(&host, &before).unwrap_err();
        action.undo(&host, &before).unwrap_err();
        assert_eq!(fs::read_to_string(&action.path).unwrap(), "theirs");
    }
}
