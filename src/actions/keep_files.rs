//! Remembering files that other programs overwrite: account tools leave `/etc/passwd-` and its kin behind.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::file_state::FileState;
use super::{Act, Host};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepFiles {
    /// The files, each of which may be missing.
    pub paths: Vec<PathBuf>,
}

impl Act for KeepFiles {
    type Before = Vec<FileState>;

    fn changes(&self) -> String {
        format!("remembers {} files that later steps overwrite", self.paths.len())
    }

    fn undone_by(&self) -> String {
        "puts them back".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, host: &Host<'_>) -> Result<Self::Before> {
        self.paths.iter().map(|path| FileState::capture(path, host)).collect()
    }

    fn apply(&self, _: &Host<'_>, _: &Self::Before) -> Result<()> {
        Ok(())
    }

    fn undo(&self, host: &Host<'_>, before: &Self::Before) -> Result<()> {
        self.paths.iter().zip(before).try_for_each(|(path, state)| state.restore(path, host))
    }
}
