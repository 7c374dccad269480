//! From each instant of each journey both ways: what `resume` makes is what an undisturbed run makes, and what `rollback` gives back
//! is the machine before, by manifest.
//!
//! A machine takes many kills in one run there and back: what recovers from one dies at the next. Where such a chain does not end as it
//! should, or an instant does not come again, each of its kills is tried alone.

use super::super::interrupted::KILLED;
use super::cases::{self, Case, Round, Way};
use super::journeys::{JOURNEYS, Journey};
use super::undisturbed::{self, Undisturbed};
use crate::harness::machine::Machine;
use crate::harness::product;
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Of how many recoveries one is tried, unless `NIX_UNROOT_SAMPLE` says so or `NIX_UNROOT_WHOLE_MATRIX` is set.
const SAMPLE: usize = 121;
/// Kills in one run and one direction, unless `NIX_UNROOT_CHAIN` says how many.
const CHAIN: usize = 12;
/// Machines at a time, unless `NIX_UNROOT_MACHINES` says how many: most of a run's time goes by waiting.
const MACHINES: usize = 2;
/// Milliseconds that a command runs before it is killed; most take about twenty.
const DELAYS: [u32; 5] = [0, 2, 5, 10, 20];
/// Of how many cases one has a recovery that is also killed after a time, whatever it is at then.
const TIMED: usize = 3;
/// Recoveries between two lines about how far the test is.
const TOLD: usize = 50;
/// Where the journal's directory of a machine before the run is kept; no manifest looks there.
const STATE: &str = "/root/nix-unroot/state";

macro_rules! journeys {
    ($($name:ident: $index:literal),+ $(,)?) => {
        $(#[test] fn $name() -> Result<()> { recover_from_each($index, sample()?) })+
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
    install_without_init: 10,
);

/// A machine before the run.
struct Site {
    machine: Machine,
    /// What `nix-unroot` is told to do there.
    arguments: String,
    /// The number that the run gets.
    run: i64,
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

/// Tries one of `sample` recoveries of the journey with this index; which ones, differs between journeys.
pub fn recover_from_each(index: usize, sample: usize) -> Result<()> {
    let journey = &JOURNEYS[index];
    let (undisturbed, machine) = Undisturbed::run(journey)?;
    let chosen = chosen();
    let all: Vec<_> = cases::of(&undisturbed)
        .into_iter()
        .filter(|case| chosen.as_ref().is_none_or(|part| case.instant.contains(part.as_str())))
        .collect();
    // Odd, as each instant has two recoveries.
    let step = sample | 1;
    let (instants, total) = (undisturbed.there.len() + undisturbed.back.len(), all.len());
    let wanted: Vec<_> = all.into_iter().skip(index * step / JOURNEYS.len()).step_by(step).collect();
    let tried = wanted.len();
    let matrix = Matrix {
        journey,
        undisturbed,
        rounds: Mutex::new(cases::rounds(wanted, journey.is_final, number("NIX_UNROOT_CHAIN", CHAIN)?)),
        outcomes: Mutex::default(),
        failures: Mutex::default(),
        start: Instant::now(),
    };
    let mut first = Some(Site::new(journey, machine)?);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..number("NIX_UNROOT_MACHINES", MACHINES)?)
            .map(|_| {
                let site = first.take();
                // At once: the others go on for long.
                scope.spawn(|| matrix.work(site).inspect_err(|error| println!("{}: {error:#}", journey.name)))
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

/// Of how many recoveries one is tried.
fn sample() -> Result<usize> {
    match std::env::var_os("NIX_UNROOT_WHOLE_MATRIX").is_some() || chosen().is_some() {
        true => Ok(1),
        false => number("NIX_UNROOT_SAMPLE", SAMPLE),
    }
}

/// For a closer look: only instants with this in their name.
fn chosen() -> Option<String> {
    std::env::var("NIX_UNROOT_INSTANTS").ok()
}

fn number(variable: &str, otherwise: usize) -> Result<usize> {
    Ok(std::env::var(variable).map_or(Ok(otherwise), |text| text.parse())?)
}

impl Site {
    fn new(journey: &Journey, machine: Machine) -> Result<Self> {
        machine
            .root(&format!("if [ -e /var/lib/nix-unroot ]; then cp -a /var/lib/nix-unroot {STATE}; fi"))?;
        let arguments = (journey.arguments)(&machine)?;
        let run = undisturbed::runs(&machine)?.len() as i64 + 1;
        Ok(Self { machine, arguments, run })
    }

    /// What recovers after this kill. A rollback names its run, so that one which died at its very end can be repeated.
    fn command(&self, case: &Case, recovery: &str) -> String {
        match (recovery, case.way) {
            ("resume", _) if case.is_recorded() => "resume --yes".to_owned(),
            ("resume", Way::There) => self.arguments.clone(),
            _ => format!("rollback {} --yes", self.run),
        }
    }

    /// The journal is again as it was before the run: hundreds of runs in it would take time.
    fn reset_journal(&self) -> Result<()> {
        let script = format!(
            "rm -rf /var/lib/nix-unroot; if [ -e {STATE} ]; then cp -a {STATE} /var/lib/nix-unroot; fi"
        );
        self.machine.root(&script).map(drop)
    }
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
            here.reset_journal()?;
            if self.round(&here, round)? {
                site = Some(here);
            }
        }
    }

    fn another(&self) -> Result<Site> {
        let machine = self.undisturbed.another().context("cannot make another machine")?;
        let before = self.journey.before(&machine)?;
        self.undisturbed.before.assert_same(&before, "another machine")?;
        Site::new(self.journey, machine)
    }

    /// Whether the machine is as before.
    fn round(&self, site: &Site, round: Round) -> Result<bool> {
        let (there, back) = match round {
            Round::Half(case) => {
                let done = self.there_and_back(site, &case);
                return Ok(self.told(vec![case], done));
            }
            Round::Whole(there, back) => (there, back),
        };
        if there.is_empty() {
            self.undisturbed.go_there(&site.machine, &site.arguments)?;
        } else {
            let mut done = self.onward(site, &there);
            let goes_back = back.is_empty() && !self.journey.is_final;
            if goes_back && done.is_ok() {
                let undone = product::ok(&site.machine, &format!("rollback {} --yes", site.run))
                    .and_then(|_| self.assert_before(site));
                done = undone.context("undisturbed, after a chain on the way there").and(done);
            }
            let arrived = self.told(there, done);
            if !arrived && !back.is_empty() {
                locked(&self.rounds).push_back(Round::Whole(vec![], back));
                return Ok(false);
            }
            if !arrived || back.is_empty() {
                return Ok(arrived && goes_back);
            }
        }
        let done = self.back(site, &back);
        Ok(self.told(back, done))
    }

    fn there_and_back(&self, site: &Site, case: &Case) -> Result<usize> {
        ensure!(self.dies(&site.machine, &site.arguments, case)?, "it did not get to {}", case.instant);
        match case.is_recorded() {
            true => self.recover(site, case, "rollback")?,
            false => {
                let refused = product::run(&site.machine, &site.command(case, "rollback"))?.exits(2)?;
                ensure!(refused.stderr.contains(&format!("there is no run {}", site.run)), "{refused}");
            }
        }
        self.assert_before(site)?;
        Ok(1)
    }

    /// Killed on the way there, and at its end all the same. Past the point of no return also a rollback leads there: it refuses, and
    /// says what does. Returns at how many instants it died.
    fn onward(&self, site: &Site, cases: &[Case]) -> Result<usize> {
        let machine = &site.machine;
        let mut command = site.arguments.clone();
        for (died, case) in cases.iter().enumerate() {
            if !self.dies(machine, &command, case)? {
                self.assert_after(machine)?;
                return Ok(died);
            }
            // At its last instants the run has ended, in the journal's copy at least.
            if case.recovery == "rollback" && !case.instant.starts_with("run:applied") {
                let refused = product::run(machine, "rollback --yes")?.exits(4)?;
                ensure!(refused.stderr.contains("nix-unroot resume finishes it"), "{refused}");
            }
            command = site.command(case, "resume");
        }
        if let Some(last) = cases.last() {
            self.recover(site, last, "resume")?;
        }
        self.assert_after(machine)?;
        Ok(cases.len())
    }

    fn back(&self, site: &Site, cases: &[Case]) -> Result<usize> {
        let mut command = format!("rollback {} --yes", site.run);
        for (died, case) in cases.iter().enumerate() {
            if !self.dies(&site.machine, &command, case)? {
                self.assert_before(site)?;
                return Ok(died);
            }
            command = site.command(case, case.recovery);
        }
        if let Some(last) = cases.last() {
            self.recover(site, last, last.recovery)?;
        }
        self.assert_before(site)?;
        Ok(cases.len())
    }

    fn assert_before(&self, site: &Site) -> Result<()> {
        let now = self.journey.before(&site.machine)?;
        let what = || {
            Ok::<_, anyhow::Error>(format!(
                "what was given back by {}",
                product::ok(&site.machine, "history")?
            ))
        };
        self.undisturbed.before.assert_same(&now, &what()?)
    }

    fn assert_after(&self, machine: &Machine) -> Result<()> {
        self.undisturbed.after.assert_same(&self.journey.after(machine)?, "what resume made")
    }

    /// Runs `nix-unroot` until it dies at the case's instant; false when it ended well without getting there.
    fn dies(&self, machine: &Machine, command: &str, case: &Case) -> Result<bool> {
        let delay = DELAYS[case.number % DELAYS.len()];
        // A command that goes on alone holds the lock, and the next run must wait for it.
        let outcome = machine.try_root(&format!(
            "end=0; NIX_UNROOT_CHECKPOINT={} NIX_UNROOT_CHECKPOINT_DELAY={delay} {}/nix-unroot {command} || end=$?
             flock -w 60 /var/lib/nix-unroot/lock true; exit $end",
            case.instant,
            product::DIR
        ))?;
        match outcome.status {
            KILLED => Ok(true),
            0 => Ok(false),
            _ => bail!("it was to die at {}: {outcome}", case.instant),
        }
    }

    /// Recovers after the last kill; for some cases that recovery is killed after a time, and begun again.
    fn recover(&self, site: &Site, case: &Case, recovery: &str) -> Result<()> {
        let (machine, command) = (&site.machine, site.command(case, recovery));
        if case.number.is_multiple_of(TIMED) {
            let timed = machine.try_root(&format!(
                "end=0; timeout -s KILL 0.{} {}/nix-unroot {command} || end=$?
                 flock -w 60 /var/lib/nix-unroot/lock true; exit $end",
                1 + case.number % 9,
                product::DIR
            ))?;
            // It was quicker.
            if timed.status == 0 {
                return Ok(());
            }
            ensure!(timed.status == KILLED, "what recovers from {} fails by itself: {timed}", case.instant);
        }
        // What was begun again may have got into the journal before it was killed at a time.
        let begun = command == site.arguments && undisturbed::runs(machine)?.len() as i64 >= site.run;
        let command = if begun { "resume --yes".to_owned() } else { command };
        product::ok(machine, &command).map(drop)
    }

    /// Counts the outcomes of cases that were tried together, and has what did not come to pass tried alone. Whether the machine is
    /// as it should be.
    fn told(&self, cases: Vec<Case>, done: Result<usize>) -> bool {
        let together = cases.len();
        match done {
            Ok(died) if died == together || together > 1 => {
                for (at, case) in cases.into_iter().enumerate() {
                    match at < died {
                        true => self.count(&case, at + 1 < died, "exact"),
                        // The instant of the first did not come again, so it was not got to.
                        false => locked(&self.rounds).push_back(Round::alone(case)),
                    }
                }
                true
            }
            done if together > 1 => {
                let error = done.err().map(|error| format!("{error:#}")).unwrap_or_default();
                let at: Vec<_> =
                    cases.iter().map(|case| format!("{} ({})", case.instant, case.recovery)).collect();
                println!("{}: killed at {}: {error}; now each alone", self.journey.name, at.join(", "));
                locked(&self.rounds).extend(cases.into_iter().map(Round::alone));
                false
            }
            done => {
                let error =
                    done.err().map_or_else(|| "it did not die".to_owned(), |error| format!("{error:#}"));
                for case in &cases {
                    self.count(case, false, "FAILED");
                    let Case { instant, recovery, number, .. } = case;
                    let text = format!("killed at {instant} ({number}), then {recovery}: {error}");
                    println!("{text}");
                    locked(&self.failures).push(text);
                }
                false
            }
        }
    }

    fn count(&self, case: &Case, killed_again: bool, end: &str) {
        let twice = match (killed_again, case.number.is_multiple_of(TIMED)) {
            (true, _) => ", killed at a later instant",
            (false, true) => ", killed at a time",
            (false, false) => "",
        };
        let way = if case.way == Way::There { "there" } else { "back" };
        let count = {
            let mut outcomes = locked(&self.outcomes);
            *outcomes
                .entry(format!("killed on the way {way}, {}{twice}: {end}", case.recovery))
                .or_default() += 1;
            outcomes.values().sum::<usize>()
        };
        if count.is_multiple_of(TOLD) {
            println!("{}: {count} after {:.0} s", self.journey.name, self.start.elapsed().as_secs_f32());
        }
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
