//! The exactness oracle: everything that makes up a machine, in a form that can be compared.
//!
//! Read from the host, outside the machine, so that taking it changes nothing inside; only unit states are asked of
//! the running systemd.

mod database;
mod files;
mod noise;
mod units;

use super::machine::Machine;
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// One thing of a machine: what is known about it, by name of the property.
pub type Entry = BTreeMap<&'static str, String>;

/// All things of a machine by name: paths, rows of the Nix database (`db: ...`), units (`unit: ...`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    entries: BTreeMap<String, Entry>,
}

impl Manifest {
    /// Takes the manifest of a booted machine.
    pub fn take(machine: &Machine) -> Result<Manifest> {
        let mut manifest = Manifest::of_tree(machine)?;
        manifest.entries.extend(units::states(machine)?);
        Ok(manifest)
    }

    /// Takes what the disk alone tells; the machine need not run.
    pub fn of_tree(machine: &Machine) -> Result<Manifest> {
        let tree = machine.tree();
        let mut entries = files::walk(&tree, "")?;
        entries.extend(database::rows(&tree)?);
        Ok(Manifest { entries })
    }

    /// What the disk tells of everything that is not below `/nix`, where a hostile user may have put names that no manifest
    /// can hold.
    pub fn outside_nix(machine: &Machine) -> Result<Manifest> {
        Ok(Manifest { entries: files::walk(&machine.tree(), "/nix")? })
    }

    /// Leaves out a property of one thing, which two machines need not share.
    pub fn without(mut self, name: &str, property: &str) -> Manifest {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.remove(property);
        }
        self
    }

    /// Leaves out the rows of Nix's database: those of paths that a run registered hold its time.
    pub fn without_rows(mut self) -> Manifest {
        self.entries.retain(|name, _| !name.starts_with("db: "));
        self
    }

    /// What differs, one readable line a difference. Empty when the two are equal.
    pub fn differences(&self, after: &Manifest) -> Vec<String> {
        let names: BTreeSet<_> = self.entries.keys().chain(after.entries.keys()).collect();
        names
            .into_iter()
            .filter_map(|name| difference(name, self.entries.get(name), after.entries.get(name)))
            .collect()
    }

    /// Fails with all differences unless `after` is the same.
    pub fn assert_same(&self, after: &Manifest, when: &str) -> Result<()> {
        const SHOWN: usize = 200;
        let differences = self.differences(after);
        if differences.is_empty() {
            return Ok(());
        }
        let more = differences.len().saturating_sub(SHOWN);
        let rest = if more > 0 { format!("\n... and {more} more") } else { String::new() };
        bail!(
            "{when}: the machine differs in {} things (- before, + after):\n{}{rest}",
            differences.len(),
            differences[..differences.len().min(SHOWN)].join("\n")
        )
    }
}

fn difference(name: &str, before: Option<&Entry>, after: Option<&Entry>) -> Option<String> {
    match (before, after) {
        (Some(before), None) => Some(format!("- {name}  ({})", shown(before))),
        (None, Some(after)) => Some(format!("+ {name}  ({})", shown(after))),
        (Some(before), Some(after)) if before != after => {
            let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
            let value = |entry: &Entry, key: &str| entry.get(key).map_or("none".to_owned(), String::clone);
            let changes = keys
                .into_iter()
                .filter(|key| before.get(*key) != after.get(*key))
                .map(|key| format!("{key}: {} -> {}", value(before, key), value(after, key)));
            Some(format!("! {name}  {}", changes.collect::<Vec<_>>().join(", ")))
        }
        _ => None,
    }
}

fn shown(entry: &Entry) -> String {
    entry.iter().map(|(key, value)| format!("{key} {value}")).collect::<Vec<_>>().join(", ")
}
