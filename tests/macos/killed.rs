//! Runs on a Mac that die at any instant, and their rollbacks that do: every plan for Macs.
//!
//! The instants are found by running (`src/system/checkpoint.rs`). A sample of them is tried; with NIX_UNROOT_LONG all are: each on the way
//! there alone, and undone; and each of both ways in a chain of kills, in which what resumes after one dies at the next.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::mac::{KEYCHAIN, Mac, Manifest};
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

/// How much a sample leaves out.
struct Sample {
    /// Every so manieth instant around steps dies in a chain.
    around: usize,
    /// One inside of every so manieth step does.
    inside: usize,
    /// Every so manieth instant there dies alone.
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

/// A step's name in its plan, without the number that `for-each` gives it.
fn stem(step: &str) -> &str {
    step.trim_end_matches(|letter: char| letter.is_ascii_digit()).trim_end_matches('-')
}

/// Whether the journal, or its copy, knows of the run or of the rollback that died there. A rollback looks for conflicts first, with commands.
fn is_recorded(instant: &str) -> bool {
    let is_early = ["run:begin:", "run:undoing:"].iter().any(|early| instant.starts_with(early));
    !is_early || instant.starts_with("run:undoing:") && instant.ends_with(":record-copied")
}

/// What goes on after a death there: before it is in the journal, only the same again.
fn on<'a>(instant: Option<&str>, words: &'a str) -> &'a str {
    if instant.is_some_and(is_recorded) { ON } else { words }
}

fn is_long() -> bool {
    std::env::var_os("NIX_UNROOT_LONG").is_some()
}

/// The chains of kills to die. With all of them, the instants around steps are one, and each of the others has one inside of every step,
/// since a step that is done anew after a kill may not come to its later instants again.
fn chains<'a>(instants: &'a [String], sample: &Sample) -> Vec<Vec<&'a String>> {
    let (around, inside): (Vec<_>, Vec<_>) = instants.iter().partition(|instant| is_around(instant));
    let steps: Vec<_> = inside.chunk_by(|a, b| step(a) == step(b)).collect();
    if is_long() {
        let longest = steps.iter().map(|step| step.len()).max().unwrap_or_default();
        let nth = |round| steps.iter().filter_map(|step| step.get(round).copied()).collect();
        // Once a run is recorded, what resumes it does not come to its beginning.
        let (recorded, around): (Vec<_>, Vec<_>) =
            around.into_iter().partition(|instant| *instant == "run:recorded");
        return [around, recorded].into_iter().chain((0..longest).map(nth)).collect();
    }
    let some = steps.iter().enumerate().step_by(sample.inside);
    let mut chain: Vec<_> = some.map(|(index, step)| step[index % step.len()]).collect();
    chain.extend(around.into_iter().step_by(sample.around));
    chain.sort_by_key(|instant| instants.iter().position(|other| other == *instant));
    // A step that is done anew need not come to another of its instants.
    chain.dedup_by_key(|instant| step(instant));
    vec![chain]
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

    /// Dies at these steps only.
    fn at(mut self, steps: &[&str]) -> Result<Self> {
        for instants in [&mut self.there, &mut self.back] {
            instants.retain(|instant| steps.iter().any(|wanted| instant.split(':').nth(1) == Some(wanted)));
            ensure!(!instants.is_empty(), "none of {steps:?} is done or undone");
        }
        println!("in {steps:?}: {} instants there, {} back", self.there.len(), self.back.len());
        Ok(self)
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

    fn dies(&self, sample: &Sample) -> Result<()> {
        self.dies_again_and_again(sample)?;
        println!("`{}` died again and again, and arrived there and back", self.words);
        self.dies_once(sample)
    }

    /// Dies again and again on the way there, and again and again on the way back.
    fn dies_again_and_again(&self, sample: &Sample) -> Result<()> {
        let (mut there, mut back) = (chains(&self.there, sample), chains(&self.back, sample));
        let longer = there.len().max(back.len());
        there.resize(longer, Vec::new());
        back.resize(longer, Vec::new());
        for (there, back) in there.into_iter().zip(back) {
            let mut last = None;
            for instant in &there {
                self.die(instant, on(last, &self.words))?;
                last = Some(instant.as_str());
            }
            self.mac.ok(on(last, &self.words))?;
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
            self.mac.ok(on(Some(instant), &self.words))?;
            self.done.assert_same(&self.mac.outcome()?, &format!("killed at {instant} and resumed"))?;
            if index / every % 8 == 1 {
                let on_the_way_back = &self.back[index * self.back.len() / self.there.len()];
                self.die(on_the_way_back, BACK)?;
                self.mac.ok(on(Some(on_the_way_back), BACK))?;
            } else {
                self.mac.ok(BACK)?;
            }
            self.assert_undone(&format!("a kill at {instant}, resumption"))?;
        }
        Ok(())
    }
}

#[test]
fn a_migration_that_dies_arrives_there_and_back() -> Result<()> {
    Journey::of(Mac::official(2)?, migrate::GO, false)?.dies(&Sample { around: 17, inside: 6, alone: 61 })
}

#[test]
fn an_installation_that_dies_arrives_there_and_back() -> Result<()> {
    let (mac, install) = install::with_build_users()?;
    Journey::of(mac, &install, true)?.dies(&Sample { around: 17, inside: 4, alone: 97 })
}

#[test]
fn a_removal_that_dies_arrives_there_and_back() -> Result<()> {
    Journey::of(uninstall::without_channels(2)?, uninstall::KEEP, false)?.dies(&Sample {
        around: 3,
        inside: 4,
        alone: 29,
    })
}

/// A Mac whose volumes need no password, and that has no build users.
fn without_file_vault() -> Result<(Mac, String)> {
    let mac = Mac::clean()?;
    let install = mac.archive()?;
    mac.change_state(|state| {
        state["volumes"][0]["FileVault"] = false.into();
        Ok(())
    })?;
    Ok((mac, install))
}

/// What the other installation has no use for: build users, and a volume that needs no password.
#[test]
fn an_installation_that_dies_while_it_makes_build_users_or_mounts_without_a_password_is_undone() -> Result<()>
{
    let (mac, words) = without_file_vault()?;
    let steps = ["create-build-group", "create-build-user-1", "create-build-user-32", "write-mounter"];
    Journey::of(mac, &words, true)?.at(&steps)?.dies(&Sample { around: 5, inside: 2, alone: 67 })
}

#[test]
fn a_migration_that_dies_while_it_removes_the_job_of_nixos_installer_is_undone() -> Result<()> {
    let journey = Journey::of(migrate::nixos_installer(2)?, migrate::GO, false)?;
    journey.at(&["remove-hook-1"])?.dies(&Sample { around: 2, inside: 1, alone: 5 })
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

/// A rollback refuses from where something went for good; until then it is exact.
#[test]
fn a_whole_removal_that_dies_is_finished() -> Result<()> {
    let (until, from) = of_a_whole_removal()?;
    let every = if is_long() { 1 } else { 7 };
    let mut finished = 0;
    for instant in until.iter().step_by(every * every).chain(from.iter().step_by(every)) {
        let mac = Mac::official(2)?;
        let before = mac.manifest()?;
        ensure!(mac.killed_at(instant, uninstall::GO)?, "{instant} was not reached");
        // After the last instant the run has ended.
        if from.contains(instant) && !instant.starts_with("run:applied") {
            let output = mac.run(BACK)?;
            if output.status.success() {
                before.assert_same(&mac.manifest()?, &format!("killed at {instant} and rolled back"))?;
                continue;
            }
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(
                output.status.code() == Some(4) && said.contains("nix-unroot resume finishes it"),
                "{output:?}"
            );
        }
        mac.ok(on(Some(instant), uninstall::GO))?;
        uninstall::assert_gone(&mac)?;
        finished += 1;
    }
    ensure!(finished * 2 > from.len() / every, "{finished} were finished");
    Ok(())
}

/// A store that lies on the system's own disk.
fn without_a_volume() -> Result<Mac> {
    let mac = Mac::official(2)?;
    mac.change_state(|state| {
        state["volumes"].as_array_mut().context("volumes")?.truncate(1);
        state["keychains"][KEYCHAIN].as_array_mut().context("items")?.truncate(1);
        Ok(())
    })?;
    mac.file("etc/fstab", "# as Apple delivers it\n")?;
    mac.shell("rm Library/LaunchDaemons/org.nixos.darwin-store.plist")?;
    mac.change_state(|state| {
        state["jobs"].as_object_mut().context("jobs")?.remove("org.nixos.darwin-store");
        Ok(())
    })?;
    Ok(mac)
}

#[test]
fn a_removal_that_dies_while_it_deletes_a_store_without_a_volume_is_finished() -> Result<()> {
    let mac = without_a_volume()?;
    let mut instants = mac.instants(uninstall::GO)?;
    uninstall::assert_gone(&mac)?;
    instants.retain(|instant| step(instant) == "do:delete-tree-1");
    ensure!(instants.len() > 4, "{instants:?}");
    println!("in delete-tree-1: {} instants", instants.len());
    for instant in instants.iter().step_by(if is_long() { 1 } else { 3 }) {
        let mac = without_a_volume()?;
        ensure!(mac.killed_at(instant, uninstall::GO)?, "{instant} was not reached");
        mac.ok(ON)?;
        uninstall::assert_gone(&mac)?;
    }
    Ok(())
}

/// Every step of every plan for Macs is in a run that is killed here.
#[test]
fn every_step_is_in_a_run_that_dies() -> Result<()> {
    let (new, install) = install::with_build_users()?;
    let (without_file_vault, others) = without_file_vault()?;
    let runs = [
        (Mac::official(2)?, migrate::GO),
        (new, &install),
        (uninstall::without_channels(2)?, uninstall::KEEP),
        (Mac::official(2)?, uninstall::GO),
        (without_file_vault, &others),
        (migrate::nixos_installer(2)?, migrate::GO),
        (without_a_volume()?, uninstall::GO),
    ];
    let mut done = BTreeSet::new();
    for (mac, words) in runs {
        let plan: Value = serde_json::from_str(&mac.ok(&format!("{words} --dry-run --json"))?)?;
        let steps = plan["plan"]["step"].as_array().context("steps")?;
        done.extend(steps.iter().filter_map(|step| Some(stem(step["id"].as_str()?).to_owned())));
    }
    let mut shipped = BTreeSet::new();
    for plan in ["migrate", "install", "uninstall"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("plans/{plan}-macos.toml"));
        let plan: toml::Table = std::fs::read_to_string(path)?.parse()?;
        let steps = plan["step"].as_array().context("steps")?;
        shipped.extend(steps.iter().filter_map(|step| Some(step.get("id")?.as_str()?.to_owned())));
    }
    ensure!(shipped.len() > 50, "only {} steps in the plans", shipped.len());
    let missing: Vec<_> = shipped.difference(&done).collect();
    ensure!(missing.is_empty(), "no kill is tried in {missing:?}");
    Ok(())
}
