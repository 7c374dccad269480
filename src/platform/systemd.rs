//! systemd: asking about units, starting and stopping them.

use std::path::Path;

use anyhow::{Context, Result, ensure};

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
    Ok(!active(std::slice::from_ref(unit))?.is_empty())
}

/// Those of `units` that are active.
pub fn active(units: &[UnitName]) -> Result<Vec<UnitName>> {
    if !is_running() {
        return Ok(Vec::new());
    }
    let states = State::of(units)?;
    Ok(units
        .iter()
        .zip(states)
        .filter(|(_, state)| state.is_active())
        .map(|(unit, _)| unit.clone())
        .collect())
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
    stop_in_order(&[units])
}

/// The same of several groups, one after the other.
pub fn stop_in_order(groups: &[&[UnitName]]) -> Result<()> {
    let all = groups.concat();
    if !is_running() || all.is_empty() {
        return Ok(());
    }
    let states = State::of(&all)?;
    // Where nothing runs, is about to, or has failed, there is nothing to stop and to forget.
    if states.iter().all(State::is_at_rest) {
        return Ok(());
    }
    for group in groups {
        // What an earlier group started meanwhile is stopped as well.
        let known = |unit: &&UnitName| {
            all.iter().zip(&states).any(|(other, state)| other == *unit && state.is_known())
        };
        let known: Vec<_> = group.iter().filter(known).collect();
        if !known.is_empty() {
            command::run("systemctl", &with_verb("stop", &known))?;
        }
    }
    // Also of those without a file: a timer fails when the unit that it starts vanishes. One that did not fail has nothing to forget.
    let _ = command::output("systemctl", &with_verb("reset-failed", &all.iter().collect::<Vec<_>>()));
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

/// What systemd says of a unit.
#[derive(Debug, PartialEq, Eq)]
struct State {
    load: String,
    active: String,
    has_job: bool,
}

impl State {
    /// Of several units, with one question.
    fn of(units: &[UnitName]) -> Result<Vec<Self>> {
        if units.is_empty() {
            // Without a name, systemctl would tell about the manager itself.
            return Ok(Vec::new());
        }
        let words = ["show", "--property=LoadState,ActiveState,Job", "--"];
        let names = units.iter().map(UnitName::as_str);
        let said = command::run("systemctl", &words.into_iter().chain(names).collect::<Vec<_>>())
            .with_context(|| format!("cannot ask systemd for {}", self::names(units)))?;
        let states: Vec<_> = said.trim().split("\n\n").map(Self::read).collect();
        ensure!(
            states.len() == units.len(),
            "systemd did not answer for each of {}: {said:?}",
            self::names(units)
        );
        Ok(states)
    }

    /// One unit's lines; systemctl leaves out what has no value, such as the job of a unit that has none.
    fn read(block: &str) -> Self {
        let value = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().to_owned()
        };
        let has_job = !matches!(value("Job").as_str(), "" | "0");
        Self { load: value("LoadState"), active: value("ActiveState"), has_job }
    }

    fn is_active(&self) -> bool {
        matches!(self.active.as_str(), "active" | "activating" | "reloading")
    }

    /// Whether there is something that could be stopped.
    fn is_known(&self) -> bool {
        !matches!(self.load.as_str(), "not-found" | "error" | "bad-setting") || self.is_active()
    }

    fn is_at_rest(&self) -> bool {
        self.active == "inactive" && !self.has_job
    }
}

fn with_verb<'a>(verb: &'a str, units: &[&'a UnitName]) -> Vec<&'a str> {
    std::iter::once(verb).chain(units.iter().map(|unit| unit.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_no_unit_nobody_is_asked() {
        assert_eq!(State::of(&[]).unwrap(), []);
    }

    #[test]
    fn only_a_unit_that_neither_runs_nor_failed_nor_waits_is_at_rest() {
        for (said, known, active, at_rest) in [
            ("LoadState=loaded\nActiveState=inactive", true, false, true),
            ("LoadState=loaded\nActiveState=inactive\nJob=0", true, false, true),
            ("Job=17\nLoadState=loaded\nActiveState=inactive", true, false, false),
            ("LoadState=loaded\nActiveState=active", true, true, false),
            ("LoadState=not-found\nActiveState=failed", false, false, false),
            ("LoadState=not-found\nActiveState=active", true, true, false),
            ("LoadState=masked\nActiveState=inactive", true, false, true),
            ("LoadState=loaded\nActiveState=deactivating", true, false, false),
            ("", true, false, false),
        ] {
            let state = State::read(said);
            assert_eq!(
                (state.is_known(), state.is_active(), state.is_at_rest()),
                (known, active, at_rest),
                "{said}"
            );
        }
    }
}
