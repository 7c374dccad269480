//! Unit states: what is enabled, and what of Nix runs.

use super::Entry;
use crate::harness::machine::Machine;
use anyhow::Result;
use std::collections::BTreeMap;

/// Every unit file's enablement, the state of Nix's units, and units that failed.
pub fn states(machine: &Machine) -> Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::new();
    let files = machine.root("systemctl list-unit-files --no-legend --no-pager --plain")?;
    for line in files.lines() {
        let mut words = line.split_whitespace();
        if let (Some(unit), Some(state)) = (words.next(), words.next()) {
            set(&mut entries, unit, "enablement", state);
        }
    }
    let units = machine.root("systemctl list-units --all --no-legend --no-pager --plain")?;
    for line in units.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let [unit, load, active, ..] = words[..] else { continue };
        // An instance lives as long as one connection.
        let nix = unit.starts_with("nix") && !unit.contains('@');
        if nix || active == "failed" {
            set(&mut entries, unit, "load", load);
            set(&mut entries, unit, "active", active);
        }
    }
    Ok(entries)
}

fn set(entries: &mut BTreeMap<String, Entry>, unit: &str, property: &'static str, value: &str) {
    entries.entry(format!("unit: {unit}")).or_default().insert(property, value.to_owned());
}
