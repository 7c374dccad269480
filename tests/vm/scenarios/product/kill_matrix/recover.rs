//! From each instant of each journey both ways: what `resume` makes is what an undisturbed run makes, and what `rollback` gives back
//! is the machine before, by manifest.

use super::super::interrupted::KILLED;
use super::journeys::{JOURNEYS, Journey};
use super::undisturbed::Undisturbed;
use crate::harness::machine::Machine;
use crate::harness::manifest::Manifest;
use crate::harness::product;
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Of how many recoveries one is tried, unless `NIX_UNROOT_SAMPLE` says so or `NIX_UNROOT_WHOLE_MATRIX` is set.
const SAMPLE: usize = 121;
/// Machines at a time, unless `NIX_UNROOT_MACHINES` says how many: most of a run's time goes by waiting.
const MACHINES: usize = 2;
/// Milliseconds that a command runs before it is killed; most take about twenty.
const DELAYS: [u32; 5] = [0, 2, 5, 10, 20];
/// Recoveries between two lines about how far the test is.
const TOLD: usize = 50;

macro_rules! journeys {
    ($($name:ident: $index:literal),+ $(,)?) => {
        $(#[test] fn $name() -> Result<()> { recover_from_each($index, &JOURNEYS[$index]) })+
    };
}

journeys!(
    migrate_debian: 0,
    migrate_official: 1,
    migrate_everything: 2,
    migrate_newer_nix: 3,
    install: 4,
    audit_fix: 5,
    uninstall_debian: 6,
    uninstall_official: 7,
    migrate_persons: 8,
    repair: 9,
);

/// Which way a run went when it was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    There,
    Back,
}

/// A kill, and what follows it.
#[derive(Clone, Debug)]
struct Case {
    way: Way,
    instant: String,
    recovery: &'static str,
    /// Chooses the delay of a kill inside a command, and whether the recovery is killed, too.
    number: usize,
    /// Nothing before the instant is for good.
    revocable: bool,
}

/// What is tried on a machine that is as it was before, and leaves it so.
#[derive(Debug)]
enum Round {
    /// A kill on the way there, and back from it.
    Half(Case),
    /// A kill on the way there that does not keep the run from its end, and one on the way back.
    Whole(Option<Case>, Option<Case>),
}

/// A machine, and what it was before the run.
struct Site {
    machine: Machine,
    before: Manifest,
}

/// What all machines share.
struct Matrix<'a> {
    journey: &'a Journey,
    undisturbed: Undisturbed,
    rounds: Mutex<VecDeque<Round>>,
    /// Outcomes by kind, and how many there are of each.
    outcomes: Mutex<BTreeMap<String, usize>>,
    failures: Mutex<Vec<String>>,
    start: Instant,
}

/// `number` among the journeys makes that they take different samples.
fn recover_from_each(number: usize, journey: &Journey) -> Result<()> {
    let (undisturbed, machine) = Undisturbed::run(journey)?;
    let whole = std::env::var_os("NIX_UNROOT_WHOLE_MATRIX").is_some();
    // For a closer look: all instants with this in their name.
    let chosen = std::env::var("NIX_UNROOT_INSTANTS").ok();
    let all: Vec<_> = cases(&undisturbed)
        .into_iter()
        .filter(|case| chosen.as_ref().is_none_or(|part| case.instant.contains(part.as_str())))
        .collect();
    let sample = std::env::var("NIX_UNROOT_SAMPLE").map_or(Ok(SAMPLE), |text| text.parse::<usize>())?;
    // Odd, as each instant has two recoveries.
    let step = if whole || chosen.is_some() { 1 } else { sample | 1 };
    let (instants, total) = (undisturbed.there.len() + undisturbed.back.len(), all.len());
    let wanted: Vec<_> = all.into_iter().skip(number * step / JOURNEYS.len()).step_by(step).collect();
    let tried = wanted.len();
    let matrix = Matrix {
        journey,
        undisturbed,
        rounds: Mutex::new(rounds(wanted, journey.is_final)),
        outcomes: Mutex::default(),
        failures: Mutex::default(),
        start: Instant::now(),
    };
    let machines = std::env::var("NIX_UNROOT_MACHINES").map_or(Ok(MACHINES), |text| text.parse())?;
    let mut first = Some(Site { machine, before: matrix.undisturbed.before.clone() });
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..machines)
            .map(|_| {
                let site = first.take();
                scope.spawn(|| matrix.work(site))
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a panic is a failure of the test"))
    })?;
    let outcomes = locked(&matrix.outcomes);
    println!(
        "{}: {instants} instants, {tried} of {total} recoveries tried in {:.0} s:",
        journey.name,
        matrix.start.elapsed().as_secs_f32()
    );
    outcomes.iter().for_each(|(outcome, count)| println!("  {count} {outcome}"));
    let failures = locked(&matrix.failures);
    ensure!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n\n"));
    ensure!(outcomes.values().sum::<usize>() == tried && tried > 0, "{tried} were to be tried");
    Ok(())
}

fn cases(undisturbed: &Undisturbed) -> Vec<Case> {
    let there = undisturbed.there.iter().map(|instant| (Way::There, instant));
    let back = undisturbed.back.iter().map(|instant| (Way::Back, instant));
    let both = there.enumerate().chain(back.enumerate());
    both.flat_map(|(index, (way, instant))| {
        ["resume", "rollback"].map(|recovery| (way, instant.clone(), recovery, index))
    })
    .enumerate()
    .map(|(number, (way, instant, recovery, index))| {
        let revocable = way == Way::Back || index < undisturbed.revocable;
        Case { way, instant, recovery, number, revocable }
    })
    .collect()
}

/// Pairs kills on the way there with kills on the way back, so that one round tries both.
fn rounds(cases: Vec<Case>, is_final: bool) -> VecDeque<Round> {
    let (back, there): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| case.way == Way::Back);
    let (half, onward): (Vec<_>, Vec<_>) =
        there.into_iter().partition(|case| case.recovery == "rollback" && case.revocable);
    let half = half.into_iter().map(Round::Half);
    if is_final {
        // From the end of such a run nothing leads back.
        let single = onward.into_iter().map(|case| Round::Whole(Some(case), None));
        return back
            .into_iter()
            .map(|case| Round::Whole(None, Some(case)))
            .chain(half)
            .chain(single)
            .collect();
    }
    let (mut onward, mut back) = (onward.into_iter(), back.into_iter());
    let whole = std::iter::from_fn(move || match (onward.next(), back.next()) {
        (None, None) => None,
        (there, back) => Some(Round::Whole(there, back)),
    });
    whole.chain(half).collect()
}

impl Matrix<'_> {
    /// Does rounds until there are none left, with another machine after each failure.
    fn work(&self, mut site: Option<Site>) -> Result<()> {
        loop {
            let Some(round) = locked(&self.rounds).pop_front() else { return Ok(()) };
            let here = match site.take() {
                Some(site) => site,
                None => self.another()?,
            };
            if self.round(&here, round)? {
                site = Some(here);
            }
        }
    }

    fn another(&self) -> Result<Site> {
        let machine = self.journey.machine().context("cannot make another machine")?;
        let before = self.journey.before(&machine)?;
        let alike = |manifest: &Manifest| match self.journey.registers {
            true => manifest.clone().without_rows(),
            false => manifest.clone(),
        };
        alike(&self.undisturbed.before).assert_same(&alike(&before), "another machine")?;
        Ok(Site { machine, before })
    }

    /// Whether the machine is as before.
    fn round(&self, site: &Site, round: Round) -> Result<bool> {
        let arguments = (self.journey.arguments)(&site.machine)?;
        let (there, back) = match round {
            Round::Half(case) => {
                let done = self.there_and_back(site, &arguments, &case);
                return Ok(self.told(&case, done));
            }
            Round::Whole(there, back) => (there, back),
        };
        let Some(there) = there else {
            let Some(back) = back else { return Ok(true) };
            let done =
                self.undisturbed.go_there(&site.machine, &arguments).and_then(|()| self.back(site, &back));
            return Ok(self.told(&back, done));
        };
        let done = self.onward(&site.machine, &arguments, &there);
        let went = done.is_ok();
        if self.journey.is_final || !went {
            self.told(&there, done);
            if let Some(back) = back {
                locked(&self.rounds).push_back(Round::Whole(None, Some(back)));
            }
            return Ok(false);
        }
        match back {
            Some(back) => {
                self.told(&there, done);
                let done = self.back(site, &back);
                Ok(self.told(&back, done))
            }
            None => {
                let done =
                    product::ok(&site.machine, "rollback --yes").and_then(|_| self.assert_before(site));
                Ok(self.told(&there, done))
            }
        }
    }

    fn there_and_back(&self, site: &Site, arguments: &str, case: &Case) -> Result<()> {
        self.kill(&site.machine, arguments, case)?;
        product::ok(&site.machine, "rollback --yes")?;
        self.assert_before(site)
    }

    /// Killed on the way there, and at its end all the same. Past the point of no return also a rollback leads there: it refuses, and
    /// says what does.
    fn onward(&self, machine: &Machine, arguments: &str, case: &Case) -> Result<()> {
        self.kill(machine, arguments, case)?;
        if case.recovery == "rollback" && !self.is_over(machine)? {
            let refused = product::run(machine, "rollback --yes")?.exits(4)?;
            ensure!(refused.stderr.contains("nix-unroot resume finishes it"), "{refused}");
        }
        product::ok(machine, "resume --yes")?;
        self.undisturbed.after.assert_same(&self.journey.after(machine)?, "what resume made")
    }

    /// Whether nothing is to be resumed: it was killed at the very end.
    fn is_over(&self, machine: &Machine) -> Result<bool> {
        Ok(product::ok(machine, "history")?.contains(", final;"))
    }

    fn back(&self, site: &Site, case: &Case) -> Result<()> {
        self.kill(&site.machine, "rollback --yes", case)?;
        product::ok(&site.machine, &format!("{} --yes", case.recovery))?;
        self.assert_before(site)
    }

    fn assert_before(&self, site: &Site) -> Result<()> {
        site.before.assert_same(&self.journey.before(&site.machine)?, "what was given back")
    }

    /// Dies at the case's instant; every third time the recovery dies, too, whatever it is at.
    fn kill(&self, machine: &Machine, arguments: &str, case: &Case) -> Result<()> {
        let delay = DELAYS[case.number % DELAYS.len()];
        let program = format!("NIX_UNROOT_CHECKPOINT_DELAY={delay} {}/nix-unroot", product::DIR);
        let run = format!("NIX_UNROOT_CHECKPOINT={} {program} {arguments}", case.instant);
        machine.try_root(&run)?.exits(KILLED)?;
        // A command that went on alone holds the lock, and the next run must wait for it.
        machine.root("flock -w 60 /var/lib/nix-unroot/lock true")?;
        if case.number.is_multiple_of(3) {
            let recovery = if case.revocable { case.recovery } else { "resume" };
            machine
                .try_root(&format!("timeout -s KILL 0.{} {program} {recovery} --yes", 1 + case.number % 9))?;
            machine.root("flock -w 60 /var/lib/nix-unroot/lock true")?;
        }
        Ok(())
    }

    /// Counts the outcome; whether it is as it should be.
    fn told(&self, case: &Case, done: Result<()>) -> bool {
        let Case { way, instant, recovery, number, .. } = case;
        let twice = if number.is_multiple_of(3) { " (killed once, too)" } else { "" };
        let end = if done.is_ok() { "exact" } else { "FAILED" };
        let count = {
            let mut outcomes = locked(&self.outcomes);
            let way = if *way == Way::There { "there" } else { "back" };
            *outcomes.entry(format!("killed on the way {way}, {recovery}{twice}: {end}")).or_default() += 1;
            outcomes.values().sum::<usize>()
        };
        if count.is_multiple_of(TOLD) {
            println!("{}: {count} after {:.0} s", self.journey.name, self.start.elapsed().as_secs_f32());
        }
        if let Err(error) = &done {
            let text = format!("killed at {instant} ({number}), then {recovery}{twice}: {error:#}");
            println!("{text}");
            locked(&self.failures).push(text);
        }
        done.is_ok()
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
