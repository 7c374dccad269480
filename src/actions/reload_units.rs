//! systemd reads its units anew.
//!
//! A plan names this step before and after the steps that write units: undoing goes backwards, so the first one
//! makes systemd see the old units before anything starts them again. Reading all of them costs systemd a tenth of a second and more,
//! so a step whose one direction has nothing new to show says so (`only`).

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host};
use crate::platform::systemd;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadUnits {
    /// The direction in which units have changed before this step; both when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Way>,
}

/// A direction of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// When the step is done.
    Forward,
    /// When it is undone.
    Back,
}

impl ReloadUnits {
    fn reload(&self, way: Way) -> Result<()> {
        if self.only.is_some_and(|only| only != way) { Ok(()) } else { systemd::reload() }
    }
}

impl Act for ReloadUnits {
    type Before = ();

    fn changes(&self) -> String {
        match self.only {
            Some(Way::Back) => "nothing yet: systemd has read its units as they are".to_owned(),
            _ => "makes systemd read its units anew".to_owned(),
        }
    }

    fn undone_by(&self) -> String {
        match self.only {
            Some(Way::Forward) => "nothing: an earlier step makes systemd read the old units".to_owned(),
            _ => "makes systemd read its units anew, once the old ones are back".to_owned(),
        }
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, _: &Host<'_>, (): &()) -> Result<()> {
        self.reload(Way::Forward)
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        self.reload(Way::Back)
    }
}
