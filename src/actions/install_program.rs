//! A copy of a program at its place.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::file_state::FileState;
use super::{Act, Host, show};
use crate::system::files::{self, Ownership};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallProgram {
    /// The program to copy.
    pub source: PathBuf,
    /// Where to.
    pub path: PathBuf,
}

impl InstallProgram {
    fn bytes(&self) -> Result<Vec<u8>> {
        fs::read(&self.source).with_context(|| format!("cannot read the program {}", show(&self.source)))
    }
}

impl Act for InstallProgram {
    type Before = FileState;

    fn changes(&self) -> String {
        format!("copies {} to {} (root:root 0755)", show(&self.source), show(&self.path))
    }

    fn undone_by(&self) -> String {
        "puts back what was there, or removes it".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(is_program(&self.path)
            && fs::read(&self.path).is_ok_and(|there| self.bytes().is_ok_and(|ours| ours == there)))
    }

    fn capture(&self, host: &Host<'_>) -> Result<FileState> {
        FileState::capture(&self.path, host)
    }

    fn apply(&self, _: &Host<'_>, _: &FileState) -> Result<()> {
        files::replace(&self.path, &self.bytes()?, Ownership::root(0o755))
            .with_context(|| format!("cannot install {}", show(&self.path)))
    }

    fn undo(&self, host: &Host<'_>, before: &FileState) -> Result<()> {
        before.restore(&self.path, host)
    }
}

fn is_program(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && Ownership::of(&metadata) == Ownership::root(0o755))
}
