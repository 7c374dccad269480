//! Units are started.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host};
use crate::platform::systemd;
use crate::types::UnitName;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartUnits {
    /// The units, in this order.
    pub units: Vec<UnitName>,
    /// What they start: units to stop with them when this is undone.
    #[serde(default)]
    pub stop_with: Vec<UnitName>,
}

impl Act for StartUnits {
    type Before = ();

    fn changes(&self) -> String {
        format!("starts {}", systemd::names(&self.units))
    }

    fn undone_by(&self) -> String {
        format!("stops {} and what they started", systemd::names(&self.units))
    }

    /// They may run because the machine restarted in the middle of a run; undoing stops them all the same.
    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, _: &Host<'_>, (): &()) -> Result<()> {
        systemd::start(&self.units)
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        systemd::stop(&self.units)?;
        systemd::stop(&self.stop_with)
    }
}
