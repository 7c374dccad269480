//! A migration of a Mac that dies at any instant, and its rollback that does.
//!
//! The instants are found by running (`src/system/checkpoint.rs`). Without NIX_UNROOT_LONG a sample of them is tried.

use anyhow::{Result, ensure};

use crate::mac::{Mac, Manifest, is_around};
use crate::migrate::GO;

const BACK: &str = "rollback --yes";
const ON: &str = "resume --yes";

/// An undisturbed migration and rollback: the states, and the instants there and back.
struct Undisturbed {
    before: Manifest,
    migrated: Manifest,
    there: Vec<String>,
    back: Vec<String>,
}

fn undisturbed(mac: &Mac) -> Result<Undisturbed> {
    let before = mac.manifest()?;
    let there = mac.instants(GO)?;
    let migrated = mac.manifest()?.of_any_run();
    let back = mac.instants(BACK)?;
    before.assert_same(&mac.manifest()?, "after an undisturbed migration and rollback")?;
    ensure!(there.len() > 300 && back.len() > 200, "{} instants there, {} back", there.len(), back.len());
    Ok(Undisturbed { before, migrated, there, back })
}

fn long() -> bool {
    std::env::var_os("NIX_UNROOT_LONG").is_some()
}

/// `do:STEP` of `do:STEP:1:command-inside`.
fn step(instant: &str) -> &str {
    instant.splitn(3, ':').take(2).last().unwrap_or_default()
}

/// Every so many of the instants around steps.
fn around(all: &[String], every: usize) -> Vec<&String> {
    all.iter().filter(|instant| is_around(instant)).step_by(every).collect()
}

/// One instant inside of every so manieth step, another one in each round: after a kill inside, a step is done anew, and may not come to
/// its later instants again.
fn inside(all: &[String], round: usize, every: usize) -> Vec<&String> {
    let inside: Vec<_> = all.iter().filter(|instant| !is_around(instant)).collect();
    let steps = inside.chunk_by(|a, b| step(a) == step(b)).enumerate();
    steps.skip(round % every).step_by(every).map(|(index, step)| step[(index + round) % step.len()]).collect()
}

/// Kills a migration at these instants, one after the other, and its rollback at those.
fn die(mac: &Mac, states: &Undisturbed, there: &[&String], back: &[&String]) -> Result<()> {
    for (index, instant) in there.iter().enumerate() {
        ensure!(mac.killed_at(instant, if index == 0 { GO } else { ON })?, "{instant} was not reached");
    }
    mac.ok(ON)?;
    states
        .migrated
        .assert_same(&mac.manifest()?.of_any_run(), "after a migration that died again and again")?;
    for instant in back {
        ensure!(mac.killed_at(instant, BACK)?, "{instant} was not reached");
    }
    mac.ok(BACK)?;
    states.before.assert_same(&mac.manifest()?, "after a migration that died again and again, there and back")
}

#[test]
fn a_migration_that_dies_again_and_again_arrives_there_and_back() -> Result<()> {
    let mac = Mac::official(2)?;
    let states = undisturbed(&mac)?;
    let (there, back) = (&states.there, &states.back);
    println!("{} instants there, {} back", there.len(), back.len());
    let every = if long() { 1 } else { 17 };
    die(&mac, &states, &around(there, every), &around(back, every))?;
    let (rounds, every) = if long() { (6, 1) } else { (1, 6) };
    for round in 0..rounds {
        die(&mac, &states, &inside(there, round, every), &inside(back, round, every))?;
    }
    Ok(())
}

#[test]
fn a_migration_that_dies_once_is_undone_exactly() -> Result<()> {
    let mac = Mac::official(2)?;
    let Undisturbed { before, migrated, there, .. } = undisturbed(&mac)?;
    let wanted = if long() { there.len() } else { 8 };
    for (index, instant) in there.iter().skip(5).step_by(there.len().div_ceil(wanted)).enumerate() {
        ensure!(mac.killed_at(instant, GO)?, "{instant} was not reached");
        if index % 2 == 1 {
            mac.ok(ON)?;
            migrated
                .assert_same(&mac.manifest()?.of_any_run(), &format!("killed at {instant} and resumed"))?;
        }
        mac.ok(BACK)?;
        before.assert_same(&mac.manifest()?, &format!("killed at {instant} and rolled back"))?;
    }
    Ok(())
}
