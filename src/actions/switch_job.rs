//! Whether launchd may start a job, also after a restart: its state in `launchctl enable` and `disable`.
//!
//! launchd keeps that by label, whatever the property list is. Once it was said of a job, `launchctl print-disabled` names the job; there
//! is no command that takes the name out again, so undoing leaves `enabled` where nothing was said. Both mean the same.

use std::path::Path;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::drift::{Aspect, Drift, Repair};
use super::{Act, Host};
use crate::platform::launchd;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchJob {
    /// The job.
    pub label: String,
    /// Whether it may be started.
    pub enabled: bool,
}

impl Act for SwitchJob {
    /// Whether it might be started before.
    type Before = bool;

    fn changes(&self) -> String {
        let word = if self.enabled { "enables" } else { "disables" };
        format!("{word} {}: launchd {} it when the machine starts", self.label, starts(self.enabled))
    }

    fn undone_by(&self) -> String {
        "enables or disables it again, as it was".to_owned()
    }

    /// It is done again all the same: a step that was skipped is not undone.
    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<bool> {
        launchd::is_enabled(&self.label)
    }

    fn apply(&self, _: &Host<'_>, _: &bool) -> Result<()> {
        launchd::set_enabled(&self.label, self.enabled)
    }

    fn undo(&self, _: &Host<'_>, was_enabled: &bool) -> Result<()> {
        launchd::set_enabled(&self.label, *was_enabled)
    }

    fn look_for_drift(&self, _: &Host<'_>, _: Option<&bool>) -> Result<Vec<Drift>> {
        let is_enabled = launchd::is_enabled(&self.label)?;
        let found = format!("launchd {} it when the machine starts", starts(is_enabled));
        let drift = || Drift::new(Path::new(&self.label), Aspect::Runs, found, Repair::Restart);
        Ok((is_enabled != self.enabled).then(drift).into_iter().collect())
    }

    fn decides(&self, path: &Path, aspect: Aspect) -> bool {
        aspect == Aspect::Runs && path == Path::new(&self.label)
    }
}

fn starts(enabled: bool) -> &'static str {
    if enabled { "starts" } else { "does not start" }
}
