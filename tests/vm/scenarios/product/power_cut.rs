//! Power cuts: a machine migrates and rolls back on a disk with a volatile write cache, which writes down every request. Cuts are then made at random instants of that, each with another random loss of what was not flushed; each
//! medium that is left is checked, booted, and recovered.
//!
//! What is left is booted as a container, on the medium itself, whose file system this host's kernel recovers. The machine
//! that makes the requests is one, too, unless `NIX_UNROOT_POWER_VM` is set: the emulated one is fifty times slower.

use super::interrupted::{manifest, migrated_manifest};
use super::target::assert_migrated;
use crate::harness::layout::Layout;
use crate::harness::lossy_disk::{self, Cuts, Log, Random, check_file_system};
use crate::harness::machine::Machine;
use crate::harness::manifest::Manifest;
use crate::harness::{nixcmd, populated, product};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Cuts unless `NIX_UNROOT_POWER_CUTS` says how many.
const CUTS: usize = 3;
/// An emulated machine that shares two processors with other tests is slow.
const PATIENCE: Duration = Duration::from_secs(1800);

#[test]
fn after_a_power_cut_the_machine_comes_back_exactly() -> Result<()> {
    let count = std::env::var("NIX_UNROOT_POWER_CUTS").map_or(Ok(CUTS), |text| text.parse())?;
    let seed = match std::env::var("NIX_UNROOT_SEED") {
        Ok(text) => text.parse()?,
        Err(_) => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs(),
    };
    let mut random = Random(seed);
    let (machine, _) = populated(Layout::Debian, "power")?;
    product::install(&machine)?;
    let media = tempfile::tempdir_in(machine.tree().parent().context("a machine without a directory")?)?;
    let path = |name: &str| media.path().join(name);
    // The disk is asked the same by both; the emulated machine takes a quarter of an hour for it.
    let mut machine = match std::env::var_os("NIX_UNROOT_POWER_VM") {
        Some(_) => machine.into_virtual_machine(),
        None => machine,
    };
    let start = Instant::now();
    let recording = record(&mut machine, &path("base"))?;
    println!(
        "seed {seed}; the disk had {} requests in the migration and {} in the rollback, {} of them to flush; {:.0} s",
        recording.there.len(),
        recording.back.len(),
        recording.log.flushes(),
        start.elapsed().as_secs_f32()
    );

    let (states, mut cuts_back) = States::take(&recording, media.path())?;
    println!("the states before and after were taken after {:.0} s", start.elapsed().as_secs_f32());
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    let mut cuts = Cuts::new(&recording.log, path("base"));
    let (mut cached, mut kept, mut failures) = (0, 0, Vec::new());
    for case in cases(&recording, count, &mut random) {
        let start = Instant::now();
        let image = path("cut");
        let cuts = if case.during == "rollback" { &mut cuts_back } else { &mut cuts };
        let loss = cuts.cut(case.at, &mut random, &image)?;
        let what = format!(
            "a cut behind request {} of the {}, with {} of {} cached sectors kept, and {}",
            case.at, case.during, loss.kept, loss.cached, case.recovery
        );
        let end = states.recover(&image, case).unwrap_or_else(|error| {
            println!("{error:#}");
            failures.push(format!("seed {seed}, {what}: {error:#}"));
            "FAILED"
        });
        println!("{what}: {end} ({:.1} s)", start.elapsed().as_secs_f32());
        *outcomes.entry(format!("{}, {}: {end}", case.during, case.recovery)).or_default() += 1;
        cached += loss.cached;
        kept += loss.kept;
    }
    println!("{count} power cuts, {} of {cached} sectors that were not flushed were lost:", cached - kept);
    outcomes.iter().for_each(|(outcome, count)| println!("  {count} {outcome}"));
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    ensure!(outcomes.values().sum::<usize>() == count && kept < cached, "no cut lost anything");
    Ok(())
}

/// A migration and a rollback on the recorded disk, as ranges of its requests.
struct Recording {
    log: Log,
    there: Range<usize>,
    back: Range<usize>,
}

fn record(machine: &mut Machine, base: &Path) -> Result<Recording> {
    let disk = machine.boot_lossy()?;
    let cache = machine.write_cache()?;
    ensure!(cache == "write back", "the kernel believes that the disk has no write cache: {cache}");
    nixcmd::trust(machine, "alice")?;
    let run = |arguments: &str| -> Result<usize> {
        let script = format!("{}/nix-unroot {arguments} >&2; sync", product::DIR);
        machine.shell("root", &script)?.timeout(PATIENCE).ok()?;
        Ok(disk.requests())
    };
    machine.root("sync")?;
    disk.record(base)?;
    let there = 0..run("migrate --yes")?;
    assert_migrated(machine)?;
    let from = disk.requests();
    let back = from..run("rollback --yes")?;
    machine.kill();
    Ok(Recording { log: disk.recorded()?, there, back })
}

/// A cut, and how the machine is recovered from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    /// Behind which request.
    at: usize,
    during: &'static str,
    recovery: &'static str,
}

/// Two thirds of the cuts are in the migration. Half of all are where much lies in the cache, a quarter behind a random request, a
/// quarter at a random time: most of the time nothing is written.
fn cases(recording: &Recording, count: usize, random: &mut Random) -> Vec<Case> {
    let case = |number: usize| {
        let (during, range) =
            if number % 3 == 1 { ("rollback", &recording.back) } else { ("migration", &recording.there) };
        let at = match random.below(4) {
            0 => range.start + random.below(range.len()),
            1 => recording.log.at_time(range.start, range.end, random.below(1_000_000) as f64 / 1e6),
            _ => recording.log.at_load(range.start, range.end, random),
        };
        Case { at, during, recovery: if number / 3 % 2 == number % 2 { "resume" } else { "rollback" } }
    };
    let (mut there, mut back): (Vec<_>, Vec<_>) =
        (0..count).map(case).partition(|case| case.during == "migration");
    // A medium moves on from cut to cut, and each direction has its own.
    there.sort();
    back.sort();
    let (mut there, mut back) = (there.into_iter(), back.into_iter());
    std::iter::from_fn(|| Some([there.next(), back.next(), there.next()]))
        .take(count)
        .flatten()
        .flatten()
        .collect()
}

/// What a recovered machine may be.
struct States {
    before: Manifest,
    migrated: Manifest,
}

impl States {
    /// Of the same machine, undisturbed; and a medium on which cuts in the rollback can be made.
    fn take<'a>(recording: &'a Recording, media: &Path) -> Result<(Self, Cuts<'a>)> {
        let (base, image) = (media.join("undisturbed"), media.join("cut"));
        lossy_disk::copy(&media.join("base"), &base)?;
        let mut cuts = Cuts::new(&recording.log, base);
        let mut at = |at: usize| -> Result<Machine> {
            // Everything was flushed at these instants.
            cuts.cut(at, &mut Random(0), &image)?;
            check_file_system(&image)?;
            booted(&image)
        };
        let before = manifest(&at(0)?)?;
        let states = Self { before, migrated: migrated_manifest(&at(recording.there.end)?)? };
        Ok((states, cuts))
    }

    /// Recovers the machine on `image`; how that ended.
    fn recover(&self, image: &Path, case: Case) -> Result<&'static str> {
        check_file_system(image)?;
        let mut machine = booted(image)?;
        let said = product::run(&machine, &format!("{} --yes", case.recovery))?.exits(0)?;
        let history = product::ok(&machine, "history")?;
        let run = history.lines().next().unwrap_or_default();
        if run.contains(", applied;") && case.recovery == "resume" {
            assert_migrated(&machine)?;
            // The undisturbed one was booted after its migration, too.
            machine.reboot()?;
            let now = migrated_manifest(&machine)?;
            self.migrated.assert_same(&now, "what resume made")?;
            return Ok("finished");
        }
        if run.contains(", undone;") || run == "there were no runs" {
            self.before.assert_same(&manifest(&machine)?, "what was given back")?;
            return Ok("as before");
        }
        bail!("{} said this, and the run stands so: {history}\n{said}", case.recovery)
    }
}

fn booted(image: &Path) -> Result<Machine> {
    let mut machine = Machine::on_image(image, "cut")?;
    machine.boot()?;
    Ok(machine)
}
