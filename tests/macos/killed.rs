//! Runs on a Mac that die at any instant, and their rollbacks that do: every plan for Macs.
//!
//! The instants are found by running (`src/system/checkpoint.rs`). A sample of them is tried; with NIX_UNROOT_LONG all are: each alone and
//! undone, and each in a chain of kills that arrives there and back.

use anyhow::{Result, ensure};

use crate::mac::{Mac, Manifest};
use crate::{install, migrate, uninstall};

const BACK: &str = "rollback --yes";
const ON: &str = "resume --yes";

/// What a run and its rollback do when nothing disturbs them.
struct Journey {
    mac: Mac,
    words: String,
    before: Manifest,
    /// What any run leads to.
    done: Manifest,
    there: Vec<String>,
    back: Vec<String>,
    /// Whether only a restart makes all of it undone.
    restarts: bool,
}

/// Every so manieth instant that a sample has: of those around steps, of the steps of whose inside it has one, of those that it has alone.
struct Sample {
    around: usize,
    inside: usize,
    alone: usize,
}

/// Around what the engine does, not inside of a step: those come again whenever the step is done anew.
fn is_around(instant: &str) -> bool {
    instant.split(':').count() < 4
}

/// `do:STEP` of `do:STEP:1:command-inside`.
fn step(instant: &str) -> &str {
    instant.match_indices(':').nth(1).map_or(instant, |(end, _)| &instant[..end])
}

fn is_long() -> bool {
    std::env::var_os("NIX_UNROOT_LONG").is_some()
}

/// The chains of kills to die: the instants around steps in one, and one inside of every step in each of the others, since a step that is
/// done anew after a kill may not come to its later instants again.
fn chains<'a>(instants: &'a [String], sample: &Sample) -> Vec<Vec<&'a String>> {
    let (around, inside): (Vec<_>, Vec<_>) = instants.iter().partition(|instant| is_around(instant));
    let steps: Vec<_> = inside.chunk_by(|a, b| step(a) == step(b)).collect();
    if is_long() {
        let longest = steps.iter().map(|step| step.len()).max().unwrap_or_default();
        let nth = |round| steps.iter().filter_map(|step| step.get(round).copied()).collect();
        return std::iter::once(around).chain((0..longest).map(nth)).collect();
    }
    let some = steps.iter().enumerate().step_by(sample.inside);
    vec![
        around.into_iter().step_by(sample.around).collect(),
        some.map(|(index, step)| step[index % step.len()]).collect(),
    ]
}

impl Journey {
    fn of(mac: Mac, words: &str, restarts: bool) -> Result<Self> {
        let before = mac.manifest()?;
        let there = mac.instants(words)?;
        let done = mac.outcome()?;
        let back = mac.instants(BACK)?;
        let journey = Self { mac, words: words.to_owned(), before, done, there, back, restarts };
        journey.assert_undone("nothing that disturbed it")?;
        println!("`{words}`: {} instants there, {} back", journey.there.len(), journey.back.len());
        Ok(journey)
    }

    fn migration() -> Result<Self> {
        Self::of(Mac::official(2)?, migrate::GO, false)
    }

    fn installation() -> Result<Self> {
        let (mac, words) = install::with_build_users()?;
        Self::of(mac, &words, true)
    }

    fn removal() -> Result<Self> {
        Self::of(uninstall::without_channels(2)?, uninstall::KEEP, false)
    }

    fn assert_undone(&self, after: &str) -> Result<()> {
        if self.restarts {
            self.mac.restart()?;
        }
        self.before.assert_same(&self.mac.manifest()?, &format!("rolled back after {after}"))
    }

    fn die(&self, instant: &str, words: &str) -> Result<()> {
        ensure!(self.mac.killed_at(instant, words)?, "{instant} was not reached by `{words}`");
        Ok(())
    }

    /// Dies again and again on the way there, and again and again on the way back.
    fn dies_again_and_again(&self, sample: &Sample) -> Result<()> {
        let (mut there, mut back) = (chains(&self.there, sample), chains(&self.back, sample));
        let (longer, shorter) = (there.len().max(back.len()), there.len().min(back.len()));
        ensure!(shorter > 1, "nothing is inside of a step");
        there.resize(longer, Vec::new());
        back.resize(longer, Vec::new());
        for (there, back) in there.into_iter().zip(back) {
            for (index, instant) in there.iter().enumerate() {
                self.die(instant, if index == 0 { &self.words } else { ON })?;
            }
            self.mac.ok(if there.is_empty() { &self.words } else { ON })?;
            self.done.assert_same(&self.mac.outcome()?, &format!("killed at each of {there:?}"))?;
            for instant in &back {
                self.die(instant, BACK)?;
            }
            self.mac.ok(BACK)?;
            self.assert_undone(&format!("kills there, and at each of {back:?}"))?;
        }
        Ok(())
    }

    /// Dies once, and is undone at once; every fourth is also finished, and every other of these is undone by going on with a rollback that
    /// died, too.
    fn dies_once(&self, sample: &Sample) -> Result<()> {
        let every = if is_long() { 1 } else { sample.alone };
        for (index, instant) in self.there.iter().enumerate().skip(5 % every).step_by(every) {
            self.die(instant, &self.words)?;
            self.mac.ok(BACK)?;
            self.assert_undone(&format!("a kill at {instant}"))?;
            if index / every % 4 != 1 {
                continue;
            }
            self.die(instant, &self.words)?;
            self.mac.ok(ON)?;
            self.done.assert_same(&self.mac.outcome()?, &format!("killed at {instant} and resumed"))?;
            if index / every % 8 == 1 {
                let on_the_way_back = &self.back[index * self.back.len() / self.there.len()];
                self.die(on_the_way_back, BACK)?;
                self.mac.ok(ON)?;
            } else {
                self.mac.ok(BACK)?;
            }
            self.assert_undone(&format!("a kill at {instant}, resumption"))?;
        }
        Ok(())
    }
}

#[test]
fn a_migration_that_dies_again_and_again_arrives_there_and_back() -> Result<()> {
    Journey::migration()?.dies_again_and_again(&Sample { around: 17, inside: 6, alone: 0 })
}

#[test]
fn a_migration_that_dies_once_is_undone_exactly() -> Result<()> {
    Journey::migration()?.dies_once(&Sample { around: 0, inside: 0, alone: 61 })
}

#[test]
fn an_installation_that_dies_again_and_again_arrives_there_and_back() -> Result<()> {
    Journey::installation()?.dies_again_and_again(&Sample { around: 17, inside: 4, alone: 0 })
}

#[test]
fn an_installation_that_dies_once_is_undone_exactly() -> Result<()> {
    Journey::installation()?.dies_once(&Sample { around: 0, inside: 0, alone: 67 })
}

#[test]
fn a_removal_that_dies_again_and_again_arrives_there_and_back() -> Result<()> {
    Journey::removal()?.dies_again_and_again(&Sample { around: 3, inside: 4, alone: 0 })
}

#[test]
fn a_removal_that_dies_once_is_undone_exactly() -> Result<()> {
    Journey::removal()?.dies_once(&Sample { around: 0, inside: 0, alone: 29 })
}

/// The instants of a whole removal until something goes for good, and those from there on.
fn of_a_whole_removal() -> Result<(Vec<String>, Vec<String>)> {
    let all = Mac::official(2)?.instants(uninstall::GO)?;
    let (until, from) =
        all.split_at(all.iter().take_while(|instant| step(instant) != "do:purge-home-1").count());
    ensure!(until.len() > 80 && from.len() > 20, "{} instants, and {} after them", until.len(), from.len());
    println!(
        "`{}`: {} instants until something goes for good, {} from there on",
        uninstall::GO,
        until.len(),
        from.len()
    );
    Ok((until.to_vec(), from.to_vec()))
}

#[test]
fn until_something_goes_for_good_a_whole_removal_that_dies_is_undone_exactly() -> Result<()> {
    let (instants, _) = of_a_whole_removal()?;
    let mac = Mac::official(2)?;
    let before = mac.manifest()?;
    for instant in instants.iter().step_by(if is_long() { 1 } else { instants.len().div_ceil(10) }) {
        ensure!(mac.killed_at(instant, uninstall::GO)?, "{instant} was not reached");
        mac.ok(BACK)?;
        before.assert_same(&mac.manifest()?, &format!("killed at {instant} and rolled back"))?;
    }
    Ok(())
}

#[test]
fn a_whole_removal_that_dies_is_finished() -> Result<()> {
    let (until, from) = of_a_whole_removal()?;
    let every = if is_long() { 1 } else { 7 };
    for instant in until.iter().step_by(every * every).chain(from.iter().step_by(every)) {
        let mac = Mac::official(2)?;
        ensure!(mac.killed_at(instant, uninstall::GO)?, "{instant} was not reached");
        mac.ok(ON)?;
        uninstall::assert_gone(&mac)?;
    }
    Ok(())
}
