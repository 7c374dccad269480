//! The fetched archive goes when it is not needed any more.

use std::path::PathBuf;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host, show};
use crate::system::files;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgetArchive {
    /// Where `fetch-archive` put it.
    pub path: PathBuf,
}

impl Act for ForgetArchive {
    type Before = ();

    fn changes(&self) -> String {
        format!("removes {}", show(&self.path))
    }

    fn undone_by(&self) -> String {
        "nothing to undo: it is fetched again when it is wanted again".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(!self.path.exists())
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, _: &Host<'_>, (): &()) -> Result<()> {
        files::remove(&self.path).with_context(|| format!("cannot remove {}", show(&self.path)))
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        Ok(())
    }
}
