//! Time Machine passes a place over.
//!
//! tmutil(8): `addexclusion -p` keeps a path in Time Machine's own list, for which it wants root; `isexcluded` writes `[Excluded]` or
//! `[Included]` before the path. Since macOS 10.14 the terminal also needs Full Disk Access for a change, which root does not have by itself: then
//! nothing is excluded and the administrator is told, for no more is lost than room on the backup's disk.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host, show};
use crate::system::command;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExcludeFromBackup {
    /// The place.
    pub path: PathBuf,
}

impl ExcludeFromBackup {
    fn is_excluded(&self) -> Result<bool> {
        let path = self.path.to_string_lossy();
        let said = command::run("tmutil", &["isexcluded", &path]).context("cannot ask Time Machine")?;
        match said.trim_start() {
            said if said.starts_with("[Excluded]") => Ok(true),
            said if said.starts_with("[Included]") => Ok(false),
            said => bail!("tmutil isexcluded {path} says {:?}", said.trim_end()),
        }
    }

    fn change(&self, verb: &str, wanted: bool, host: &Host<'_>) -> Result<()> {
        if self.is_excluded()? == wanted {
            return Ok(());
        }
        let path = self.path.to_string_lossy();
        let output = command::output("tmutil", &[verb, "-p", &path])?;
        if !output.status.success() || self.is_excluded()? != wanted {
            let said = String::from_utf8_lossy(&output.stderr);
            host.observer.note(&format!(
                "Time Machine does not do `tmutil {verb} -p {path}` ({}): do it in a terminal that has Full Disk Access",
                said.trim()
            ));
        }
        Ok(())
    }
}

impl Act for ExcludeFromBackup {
    type Before = ();

    fn changes(&self) -> String {
        format!("tells Time Machine to pass {} over", show(&self.path))
    }

    fn undone_by(&self) -> String {
        "tells it not to pass it over any more".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        self.is_excluded()
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, host: &Host<'_>, (): &()) -> Result<()> {
        self.change("addexclusion", true, host)
    }

    fn undo(&self, host: &Host<'_>, (): &()) -> Result<()> {
        self.change("removeexclusion", false, host)
    }
}
