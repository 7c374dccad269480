//! Units are stopped, and what they left running ends.

use std::time::Duration;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::drain::{Processes, drain};
use super::{Act, Host};
use crate::platform::systemd;
use crate::types::UnitName;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopUnits {
    /// The units.
    pub units: Vec<UnitName>,
    /// Uids that builds run under.
    pub build_uids: Vec<u32>,
    /// How long builds are waited for, in seconds.
    pub drain_timeout: u64,
}

impl Act for StopUnits {
    /// The units that ran.
    type Before = Vec<UnitName>;

    fn changes(&self) -> String {
        let units = systemd::names(&self.units);
        format!("stops {units}; waits up to {} s for builds, then closes connections", self.drain_timeout)
    }

    fn undone_by(&self) -> String {
        "starts those that ran".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<Vec<UnitName>> {
        systemd::active(&self.units)
    }

    fn apply(&self, host: &Host<'_>, _: &Vec<UnitName>) -> Result<()> {
        systemd::stop(&self.units)?;
        let processes = Processes { build_uids: &self.build_uids, daemon_uids: &[0] };
        drain(host, &processes, Duration::from_secs(self.drain_timeout))
    }

    fn undo(&self, host: &Host<'_>, active: &Vec<UnitName>) -> Result<()> {
        let (there, gone): (Vec<_>, Vec<_>) = active
            .iter()
            .map(|unit| Ok((unit.clone(), systemd::is_loadable(unit)?)))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .partition(|(_, is_loadable)| *is_loadable);
        let names =
            |units: Vec<(UnitName, bool)>| units.into_iter().map(|(unit, _)| unit).collect::<Vec<_>>();
        let gone = names(gone);
        if !gone.is_empty() {
            // Somebody removed the package, say.
            host.observer.note(&format!(
                "{} ran before the migration, and is not there any more",
                systemd::names(&gone)
            ));
        }
        systemd::start(&names(there))
    }
}
