//! systemd reads its units anew.
//!
//! A plan names this step before and after the steps that write units: undoing goes backwards, so the first one
//! makes systemd see the old units before anything starts them again.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host};
use crate::platform::systemd;

/// It has no parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadUnits {}

impl Act for ReloadUnits {
    type Before = ();

    fn changes(&self) -> String {
        "makes systemd read its units anew".to_owned()
    }

    fn undone_by(&self) -> String {
        "the same, once the old units are back".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, _: &Host<'_>, (): &()) -> Result<()> {
        systemd::reload()
    }

    fn undo(&self, host: &Host<'_>, (): &()) -> Result<()> {
        self.apply(host, &())
    }
}
