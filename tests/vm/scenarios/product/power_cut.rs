//! Power cuts: a machine migrates and rolls back on a disk with a volatile write cache, which writes down every request. Cuts are then made at random instants of that, each with another random loss of what was not flushed; each
//! medium that is left is checked, booted, and recovered.
//!
//! What is left is booted as a container, on the medium itself, whose file system this host's kernel recovers. The machine
//! that makes the requests is one, too, unless `NIX_UNROOT_POWER_VM` is set: the emulated one takes minutes for it.

use super::interrupted::{manifest, migrated_manifest};
use super::target::assert_migrated;
use crate::harness::layout::Layout;
use crate::harness::lossy_disk::{self, Cuts, Log, Loss, Random, check_file_system};
use crate::harness::machine::Machine;
use crate::harness::manifest::Manifest;
use crate::harness::{nixcmd, populated, product};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    // The disk is asked the same by both; the emulated machine takes some minutes for it.
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

    let (states, cuts_back) = States::take(&recording, media.path())?;
    println!("the states before and after were taken after {:.0} s", start.elapsed().as_secs_f32());
    let cases = cases(&recording, count, &mut random).into_iter();
    let cuts = Cuts::new(&recording.log, path("base"));
    let media = Mutex::new(Media { cases, random, cuts, cuts_back });
    let ends = Mutex::new(Ends::default());
    let machines = std::env::var("NIX_UNROOT_MACHINES").map_or(Ok(1), |text| text.parse())?;
    std::thread::scope(|scope| {
        let work = |number: usize| {
            let image = path(&format!("cut-{number}"));
            loop {
                // Locks are held for these lines alone.
                let next = locked(&media).next(&image)?;
                let Some((case, loss)) = next else { return anyhow::Ok(()) };
                let start = Instant::now();
                let end = states.recover(&image, case);
                locked(&ends).add(case, &loss, end, start.elapsed());
            }
        };
        let workers: Vec<_> = (0..machines).map(|number| scope.spawn(move || work(number))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a panic is a failure of the test"))
    })?;
    let ends = locked(&ends);
    println!("{count} power cuts, {} of {} sectors that were not flushed were lost:", ends.lost, ends.cached);
    ends.outcomes.iter().for_each(|(outcome, count)| println!("  {count} {outcome}"));
    ensure!(ends.failures.is_empty(), "seed {seed}: {}", ends.failures.join("\n\n"));
    ensure!(ends.outcomes.values().sum::<usize>() == count && ends.lost > 0, "no cut lost anything");
    Ok(())
}

/// What is left of the disk after one cut after the other; only the earliest of those that are left can be made.
struct Media<'a> {
    cases: std::vec::IntoIter<Case>,
    random: Random,
    cuts: Cuts<'a>,
    cuts_back: Cuts<'a>,
}

impl Media<'_> {
    fn next(&mut self, image: &Path) -> Result<Option<(Case, Loss)>> {
        let Some(case) = self.cases.next() else { return Ok(None) };
        let cuts = if case.during == "rollback" { &mut self.cuts_back } else { &mut self.cuts };
        Ok(Some((case, cuts.cut(case.at, &mut self.random, image)?)))
    }
}

/// How the cuts ended.
#[derive(Default)]
struct Ends {
    outcomes: BTreeMap<String, usize>,
    failures: Vec<String>,
    cached: usize,
    lost: usize,
}

impl Ends {
    fn add(&mut self, case: Case, loss: &Loss, end: Result<&'static str>, took: Duration) {
        let what = format!(
            "a cut behind request {} of the {}, with {} of {} cached sectors kept, and {}",
            case.at, case.during, loss.kept, loss.cached, case.recovery
        );
        let end = end.unwrap_or_else(|error| {
            println!("{error:#}");
            self.failures.push(format!("{what}: {error:#}"));
            "FAILED"
        });
        println!("{what}: {end} ({:.1} s)", took.as_secs_f32());
        *self.outcomes.entry(format!("{}, {}: {end}", case.during, case.recovery)).or_default() += 1;
        self.cached += loss.cached;
        self.lost += loss.cached - loss.kept;
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
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
        Case { at, during, recovery: ["resume", "rollback"][random.below(2)] }
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
