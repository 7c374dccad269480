//! Units are started.

use std::path::Path;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::drift::{Aspect, Drift, Repair};
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

    fn look_for_drift(&self, _: &Host<'_>, _: Option<&()>) -> Result<Vec<Drift>> {
        let mut found = Vec::new();
        for (unit, is_started) in
            self.units.iter().map(|unit| (unit, true)).chain(self.stop_with.iter().map(|unit| (unit, false)))
        {
            let mut add = |what: String, repair| {
                found.push(Drift::new(Path::new(unit.as_str()), Aspect::Runs, what, repair));
            };
            if is_started && !systemd::is_active(unit)? {
                add("it does not run".to_owned(), Repair::Restart);
            } else if systemd::property(unit, "NeedDaemonReload")? == "yes" {
                add("its file changed, and systemd has not read it since".to_owned(), Repair::Restart);
            }
            let drop_ins = systemd::property(unit, "DropInPaths")?;
            if !drop_ins.is_empty() {
                let remedy =
                    "nothing, if you made them; else remove them, and systemctl daemon-reload".to_owned();
                add(format!("these files change what it says: {drop_ins}"), Repair::Notice(remedy));
            }
        }
        Ok(found)
    }

    fn decides(&self, path: &Path, aspect: Aspect) -> bool {
        let mut units = self.units.iter().chain(&self.stop_with);
        aspect == Aspect::Runs && units.any(|unit| Path::new(unit.as_str()) == path)
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        systemd::stop_in_order(&[&self.units, &self.stop_with])
    }
}
