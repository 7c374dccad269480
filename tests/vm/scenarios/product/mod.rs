//! What `nix-unroot` does to a machine.

mod attacks;
mod audit;
mod benchmark;
mod broker;
mod builds;
mod churn;
mod collect;
mod doctor;
mod doubts;
mod dry_run;
mod faults;
mod fleet;
mod hardening;
mod hostile;
mod install;
mod interrupted;
mod journal;
mod kill_matrix;
mod migrate;
mod moved_on;
mod namespace;
mod neighbours;
mod old_nix;
mod own_account;
mod piped;
mod power_cut;
mod preflight;
mod reboot;
mod remote_builder;
mod reports;
mod rollback;
mod scan_speed;
mod scanner;
mod single_user;
mod superset;
mod target;
mod trust;
mod two_at_once;
mod two_disks;
mod unattended;
mod uninstall;
mod virtual_machine;
mod without_init;
mod without_systemd;

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
