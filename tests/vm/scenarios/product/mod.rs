//! What `nix-unroot` does to a machine.

mod attacks;
mod builds;
mod collect;
mod dry_run;
mod interrupted;
mod journal;
mod kill_matrix;
mod migrate;
mod neighbours;
mod power_cut;
mod reboot;
mod rollback;
mod scanner;
mod target;
mod trust;
mod virtual_machine;

use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::populate::World;
use crate::harness::{before, product};
use anyhow::Result;

/// A populated machine with the programs under test, not migrated yet.
fn ready(layout: Layout, test: &str) -> Result<(Machine, World)> {
    let (machine, world) = before(layout, test)?;
    product::install(&machine)?;
    Ok((machine, world))
}

/// A populated machine after `migrate --yes`.
fn migrated(layout: Layout, test: &str) -> Result<(Machine, World)> {
    let (machine, world) = ready(layout, test)?;
    migrate(&machine)?;
    Ok((machine, world))
}

/// `migrate --yes`, and a look at whether it did anything: a rollback of nothing would leave the same machine, too.
fn migrate(machine: &Machine) -> Result<()> {
    product::ok(machine, "migrate --yes")?;
    target::assert_migrated(machine)
}
