//! systemd: asking about units, starting and stopping them.

use std::path::Path;

use anyhow::{Context, Result};

use crate::system::command;
use crate::types::UnitName;

/// Whether systemd runs this machine: the test of sd_booted(3). Where it does not, nothing here is asked of it: no unit is active, and there is
/// nobody to read them.
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Makes systemd read its units anew.
///
/// # Errors
/// When systemctl fails.
pub fn reload() -> Result<()> {
    if !is_running() {
        return Ok(());
    }
    command::run("systemctl", &["daemon-reload"])?;
    Ok(())
}

/// Whether `unit` is active (or becoming so).
pub fn is_active(unit: &UnitName) -> Result<bool> {
    if !is_running() {
        return Ok(false);
    }
    let state = property(unit, "ActiveState")?;
    Ok(matches!(state.as_str(), "active" | "activating" | "reloading"))
}

/// Those of `units` that are active.
pub fn active(units: &[UnitName]) -> Result<Vec<UnitName>> {
    let mut active = Vec::new();
    for unit in units {
        if is_active(unit)? {
            active.push(unit.clone());
        }
    }
    Ok(active)
}

/// Their names, for people.
pub fn names(units: &[UnitName]) -> String {
    units.iter().map(UnitName::as_str).collect::<Vec<_>>().join(", ")
}

/// The value of one property of a unit; empty when it has none.
pub fn property(unit: &UnitName, name: &str) -> Result<String> {
    let text = command::run("systemctl", &["show", "--property", name, "--value", unit.as_str()])
        .with_context(|| format!("cannot ask systemd for {name} of {unit}"))?;
    Ok(text.trim().to_owned())
}

/// Stops units, waits until they are stopped, and forgets how they ended. A unit that does not exist is stopped.
pub fn stop(units: &[UnitName]) -> Result<()> {
    if !is_running() {
        return Ok(());
    }
    let known = known(units)?;
    if !known.is_empty() {
        command::run("systemctl", &with_verb("stop", &known))?;
    }
    // Also of those without a file: a timer fails when the unit that it starts vanishes. One that did not fail has nothing to forget.
    if !units.is_empty() {
        let _ = command::output("systemctl", &with_verb("reset-failed", &units.iter().collect::<Vec<_>>()));
    }
    Ok(())
}

/// Starts units and waits until they run.
pub fn start(units: &[UnitName]) -> Result<()> {
    if !units.is_empty() {
        // A unit that was started too often, or failed before, would be refused; one that is unknown has nothing to reset.
        let _ = command::output("systemctl", &with_verb("reset-failed", &units.iter().collect::<Vec<_>>()));
        command::run("systemctl", &with_verb("start", &units.iter().collect::<Vec<_>>()))?;
    }
    Ok(())
}

/// Whether systemd finds a file of this unit, and can read it: it neither starts nor stops others.
pub fn is_loadable(unit: &UnitName) -> Result<bool> {
    Ok(!matches!(property(unit, "LoadState")?.as_str(), "not-found" | "error" | "bad-setting"))
}

fn known(units: &[UnitName]) -> Result<Vec<&UnitName>> {
    let mut known = Vec::new();
    for unit in units {
        if is_loadable(unit)? || is_active(unit)? {
            known.push(unit);
        }
    }
    Ok(known)
}

fn with_verb<'a>(verb: &'a str, units: &[&'a UnitName]) -> Vec<&'a str> {
    std::iter::once(verb).chain(units.iter().map(|unit| unit.as_str())).collect()
}
