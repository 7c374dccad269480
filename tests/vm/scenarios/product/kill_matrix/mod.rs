//! Killed at every instant: the instants are found by running, so that a new step is covered without further work.

mod calls;
mod cases;
mod coverage;
mod journeys;
mod recover;
mod sample;
mod undisturbed;

use super::interrupted::{killed_at, manifest, migrated_manifest};
use super::ready;
use super::target::{Expected, assert_migrated, assert_trust};
use crate::harness::layout::Layout;
use crate::harness::product;
use anyhow::Result;
use undisturbed::instants;

on_both_layouts!(a_run_that_dies_at_every_instant_arrives_all_the_same);

/// Whether an instant lies inside of a step, and not around what the engine does: `do:STEP:2:file-synced`.
fn is_inside(instant: &str) -> bool {
    instant.split(':').count() == 4
}

/// One run is killed at each instant in turn, so every instant but the first is also a kill during a recovery.
fn a_run_that_dies_at_every_instant_arrives_all_the_same(layout: Layout) -> Result<()> {
    let (machine, world) = ready(layout, "chain")?;
    let expected = Expected::ask(&machine)?;
    let (before, there) = (manifest(&machine)?, instants(&machine, "migrate --yes")?);
    let (migrated, back) = (migrated_manifest(&machine)?, instants(&machine, "rollback --yes")?);
    // An instant inside a step may not come again when the step is done anew: those are for `recover`.
    let around = |all: Vec<String>| all.into_iter().filter(|instant| !is_inside(instant)).collect::<Vec<_>>();
    let (mut there, back) = (around(there), around(back));
    // Only the command that begins a run comes there, and it died when the run was recorded.
    there.retain(|instant| instant != "run:begun");
    println!("{layout:?}: {} instants there, {} back", there.len(), back.len());

    for (index, instant) in there.iter().enumerate() {
        killed_at(&machine, instant, if index == 0 { "migrate --yes" } else { "resume --yes" })?;
    }
    product::ok(&machine, "resume --yes")?;
    assert_migrated(&machine)?;
    assert_trust(&machine)?;
    product::ok(&machine, "verify")?;
    migrated.assert_same(&migrated_manifest(&machine)?, "after a migration that died at every instant")?;

    for (index, instant) in back.iter().enumerate() {
        // Both commands must go on with a run that is half undone.
        killed_at(&machine, instant, if index % 2 == 0 { "rollback --yes" } else { "resume --yes" })?;
    }
    product::ok(&machine, "rollback --yes")?;
    before.assert_same(&manifest(&machine)?, "after a run that died at every instant, there and back")?;
    expected.assert_collects(&machine, layout)?;
    world.assert_live(&machine)
}
