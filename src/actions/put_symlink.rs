//! A symbolic link: a masked or an enabled unit.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conflict::{Scan, Wrote, ensure_untouched, undo_placed};
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
}

impl PutSymlink {
    fn wrote(&self) -> Wrote {
        Wrote::Link(self.target.clone())
    }
}
