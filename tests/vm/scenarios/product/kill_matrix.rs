//! Killed at every instant: the instants are found by running, so that a new step is covered without further work.
//!
//! The chains kill one run at each instant in turn, so every instant but the first is also a kill during a recovery.

use super::interrupted::{killed_at, manifest};
use super::ready;
use super::target::{Expected, assert_migrated, assert_trust};
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::product;
use anyhow::{Result, ensure};

on_both_layouts!(a_run_that_dies_at_every_instant_arrives_all_the_same, a_rollback_from_any_instant_is_exact);

/// Of how many instants a rollback is tried from one, unless `NIX_UNROOT_WHOLE_MATRIX` is set: all of them take a quarter
/// of an hour.
const SAMPLE: usize = 6;
/// Where a run writes the names of the instants that it reaches (see `src/engine/checkpoint.rs`).
const LOG: &str = "/tmp/instants";

/// The instants that `nix-unroot` reaches with these arguments, in their order.
pub fn instants(machine: &Machine, arguments: &str) -> Result<Vec<String>> {
    machine.root(&format!(
        "rm -f {LOG}; NIX_UNROOT_CHECKPOINT_LOG={LOG} {}/nix-unroot {arguments} >/dev/null 2>&1",
        product::DIR
    ))?;
    Ok(machine.root(&format!("cat {LOG}; rm {LOG}"))?.lines().map(str::to_owned).collect())
}

fn a_run_that_dies_at_every_instant_arrives_all_the_same(layout: Layout) -> Result<()> {
    let (machine, world) = ready(layout, "chain")?;
    let expected = Expected::ask(&machine)?;
    let before = manifest(&machine)?;
    let there = instants(&machine, "migrate --yes")?;
    let back = instants(&machine, "rollback --yes")?;
    before.assert_same(&manifest(&machine)?, "after an undisturbed migration and rollback")?;
    println!("{layout:?}: {} instants there, {} back", there.len(), back.len());
    for wanted in ["run:begun", "do:reown-store:applied", "do:verify:done", "run:applied"] {
        ensure!(there.iter().any(|instant| instant == wanted), "{wanted} was not reached: {there:?}");
    }
    ensure!(back.len() > there.len() / 2, "there are fewer instants on the way back: {back:?}");

    for (index, instant) in there.iter().enumerate() {
        killed_at(&machine, instant, if index == 0 { "migrate --yes" } else { "resume --yes" })?;
    }
    product::ok(&machine, "resume --yes")?;
    assert_migrated(&machine)?;
    assert_trust(&machine)?;
    product::ok(&machine, "verify")?;

    for (index, instant) in back.iter().enumerate() {
        // Both commands must go on with a run that is half undone.
        killed_at(&machine, instant, if index % 2 == 0 { "rollback --yes" } else { "resume --yes" })?;
    }
    product::ok(&machine, "rollback --yes")?;
    before.assert_same(&manifest(&machine)?, "after a run that died at every instant, there and back")?;
    expected.assert_collects(&machine, layout)?;
    world.assert_live(&machine)
}

fn a_rollback_from_any_instant_is_exact(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "matrix")?;
    let before = manifest(&machine)?;
    let there = instants(&machine, "migrate --yes")?;
    product::ok(&machine, "rollback --yes")?;
    let step = if std::env::var_os("NIX_UNROOT_WHOLE_MATRIX").is_some() { 1 } else { SAMPLE };
    // The layouts take different samples.
    let first = if layout == Layout::Debian { 0 } else { step / 2 };
    let tried: Vec<_> = there.iter().skip(first).step_by(step).collect();
    for instant in &tried {
        killed_at(&machine, instant, "migrate --yes")?;
        product::ok(&machine, "rollback --yes")?;
        before.assert_same(&manifest(&machine)?, &format!("after a kill at {instant} and a rollback"))?;
    }
    println!("{layout:?}: rolled back from {} of {} instants", tried.len(), there.len());
    Ok(())
}
