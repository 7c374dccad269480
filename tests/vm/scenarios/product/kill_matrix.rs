//! Killed at every instant: the instants are found by running, so that a new step is covered without further work.
//!
//! The chains kill one run at each instant in turn, so every instant but the first is also a kill during a recovery.

use super::interrupted::{KILLED, killed_at, manifest, migrated_manifest};
use super::ready;
use super::target::{Expected, assert_migrated, assert_trust};
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::manifest::Manifest;
use crate::harness::product;
use anyhow::{Context, Result, ensure};

on_both_layouts!(
    a_run_that_dies_at_every_instant_arrives_all_the_same,
    a_recovery_from_any_instant_is_exact,
    a_recovery_from_inside_a_step_is_exact,
);

/// Of how many instants one is recovered from, unless `NIX_UNROOT_WHOLE_MATRIX` is set.
const SAMPLE: usize = 12;
/// The same for instants inside of steps, of which there are many more.
const SAMPLE_INSIDE: usize = 40;
/// Milliseconds that a command runs before it is killed; most take about twenty.
const DELAYS: [u32; 5] = [0, 2, 5, 10, 20];
/// Where a run writes the names of the instants that it reaches (see `src/system/checkpoint.rs`).
const LOG: &str = "/tmp/instants";

/// The instants that `nix-unroot` reaches with these arguments, in their order.
pub fn instants(machine: &Machine, arguments: &str) -> Result<Vec<String>> {
    machine.root(&format!(
        "rm -f {LOG}; NIX_UNROOT_CHECKPOINT_LOG={LOG} {}/nix-unroot {arguments} >/dev/null 2>&1",
        product::DIR
    ))?;
    Ok(machine.root(&format!("cat {LOG}; rm {LOG}"))?.lines().map(str::to_owned).collect())
}

/// Whether an instant lies inside of a step, and not around what the engine does: `do:STEP:2:file-synced`.
fn is_inside(instant: &str) -> bool {
    instant.split(':').count() == 4
}

/// An undisturbed migration and rollback: the instants of both, and the states between them.
struct Undisturbed {
    there: Vec<String>,
    back: Vec<String>,
    before: Manifest,
    migrated: Manifest,
}

impl Undisturbed {
    fn run(machine: &Machine) -> Result<Self> {
        let before = manifest(machine)?;
        let there = instants(machine, "migrate --yes")?;
        let migrated = migrated_manifest(machine)?;
        assert_every_step_has_instants(machine, &there, "do", &["captured", "recorded", "applied", "done"])?;
        let back = instants(machine, "rollback --yes")?;
        before.assert_same(&manifest(machine)?, "after an undisturbed migration and rollback")?;
        assert_every_step_has_instants(machine, &back, "undo", &["recorded", "applied", "done"])?;
        Ok(Self { there, back, before, migrated })
    }
}

/// Each step of the last run that was not skipped has an instant around everything that the engine does for it.
fn assert_every_step_has_instants(
    machine: &Machine,
    seen: &[String],
    way: &str,
    wanted: &[&str],
) -> Result<()> {
    let history: serde_json::Value = serde_json::from_str(&product::ok(machine, "history --json")?)?;
    let runs = history["runs"].as_array().context("no runs in the history")?;
    let steps = runs.last().and_then(|run| run["steps"].as_array()).context("no steps in the history")?;
    let mut covered = 0;
    for step in steps.iter().filter(|step| step["state"] != "skipped") {
        let id = step["id"].as_str().context("a step without an id")?;
        for word in wanted {
            let instant = format!("{way}:{id}:{word}");
            ensure!(seen.contains(&instant), "{instant} was not reached: no kill is tried there");
        }
        covered += 1;
    }
    ensure!(covered > 30, "only {covered} steps did anything");
    Ok(())
}

fn a_run_that_dies_at_every_instant_arrives_all_the_same(layout: Layout) -> Result<()> {
    let (machine, world) = ready(layout, "chain")?;
    let expected = Expected::ask(&machine)?;
    let Undisturbed { mut there, mut back, before, migrated } = Undisturbed::run(&machine)?;
    // An instant inside a step may not come again when the step is done anew: those have a test of their own.
    there.retain(|instant| !is_inside(instant));
    back.retain(|instant| !is_inside(instant));
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

fn a_recovery_from_any_instant_is_exact(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "matrix")?;
    recover_from_each(&machine, layout, SAMPLE, |instant| !is_inside(instant))
}

fn a_recovery_from_inside_a_step_is_exact(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "inside")?;
    recover_from_each(&machine, layout, SAMPLE_INSIDE, is_inside)
}

/// Kills a migration or a rollback at each of these instants (at a sample of them), each time going both ways from there.
/// Every third recovery is killed, too, and begun again.
fn recover_from_each(
    machine: &Machine,
    layout: Layout,
    sample: usize,
    wanted: impl Fn(&str) -> bool,
) -> Result<()> {
    let undisturbed = Undisturbed::run(machine)?;
    let there = undisturbed.there.iter().map(|instant| (instant, "migrate"));
    let back = undisturbed.back.iter().map(|instant| (instant, "rollback"));
    let all: Vec<_> = there.chain(back).filter(|(instant, _)| wanted(instant)).collect();
    // For a closer look: all instants with this in their name.
    let chosen = std::env::var("NIX_UNROOT_INSTANTS").ok();
    let all: Vec<_> = all
        .into_iter()
        .filter(|(instant, _)| chosen.as_ref().is_none_or(|part| instant.contains(part.as_str())))
        .collect();
    let whole = chosen.is_some() || std::env::var_os("NIX_UNROOT_WHOLE_MATRIX").is_some();
    let step = if whole { 1 } else { sample };
    // The layouts take different samples.
    let first = if layout == Layout::Debian { 0 } else { step / 2 };
    let (mut tried, mut recoveries, mut failures) = (0, 0, Vec::new());
    for (number, (instant, command)) in all.iter().enumerate().skip(first).step_by(step) {
        tried += 1;
        for recovery in ["resume", "rollback"] {
            recoveries += 1;
            if let Err(error) = undisturbed.recover(machine, instant, command, recovery, recoveries) {
                let text = format!("killed in {command} at {instant} ({number}), then {recovery}: {error:#}");
                println!("{text}");
                failures.push(text);
                // What comes next begins where the machine was.
                product::run(machine, "rollback --yes")?;
            }
        }
    }
    println!(
        "{layout:?}: {recoveries} recoveries from {tried} of {} instants, {} failed",
        all.len(),
        failures.len()
    );
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    Ok(())
}

impl Undisturbed {
    /// From the state before to the state before, by way of a death at `instant` of `command`.
    fn recover(
        &self,
        machine: &Machine,
        instant: &str,
        command: &str,
        recovery: &str,
        number: usize,
    ) -> Result<()> {
        if command == "rollback" {
            product::ok(machine, "migrate --yes")?;
        }
        let delay = DELAYS[number % DELAYS.len()];
        let program = format!("NIX_UNROOT_CHECKPOINT_DELAY={delay} {}/nix-unroot", product::DIR);
        machine
            .try_root(&format!("NIX_UNROOT_CHECKPOINT={instant} {program} {command} --yes"))?
            .exits(KILLED)?;
        // A command that went on alone holds the lock, and the next run must wait for it.
        machine.root("flock -w 60 /var/lib/nix-unroot/lock true")?;
        if number.is_multiple_of(3) {
            // Whatever it does in that time; it may also be done with it.
            let kill = format!("timeout -s KILL 0.{} {program} {recovery} --yes", 1 + number % 9);
            machine.try_root(&kill)?;
            machine.root("flock -w 60 /var/lib/nix-unroot/lock true")?;
        }
        product::ok(machine, &format!("{recovery} --yes"))?;
        let onward = command == "migrate" && recovery == "resume";
        if onward {
            self.migrated.assert_same(&migrated_manifest(machine)?, "what resume made")?;
            product::ok(machine, "rollback --yes")?;
        }
        self.before.assert_same(&manifest(machine)?, "what was given back")
    }
}
