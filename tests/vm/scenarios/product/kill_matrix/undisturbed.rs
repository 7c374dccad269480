//! A journey that nobody disturbs: its instants, and the states at its ends.

use super::super::interrupted::killed_at;
use super::journeys::Journey;
use crate::harness::machine::Machine;
use crate::harness::manifest::Manifest;
use crate::harness::product;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Where a run writes the names of the instants that it reaches (see `src/system/checkpoint.rs`).
const LOG: &str = "/tmp/instants";
/// Steps that nothing undoes (`Act::is_irrevocable`).
const IRREVOCABLE: [&str; 3] = ["purge-packages", "purge-home", "delete-store"];

/// The instants that `nix-unroot` reaches with these arguments, in their order.
pub fn instants(machine: &Machine, arguments: &str) -> Result<Vec<String>> {
    machine.root(&format!(
        "rm -f {LOG}; NIX_UNROOT_CHECKPOINT_LOG={LOG} {}/nix-unroot {arguments} >/dev/null 2>&1",
        product::DIR
    ))?;
    Ok(machine.root(&format!("cat {LOG}; rm {LOG}"))?.lines().map(str::to_owned).collect())
}

/// An undisturbed run and its rollback: the instants of both, and the states between them.
pub struct Undisturbed {
    pub there: Vec<String>,
    pub back: Vec<String>,
    /// How many of `there` come before the first change that can never be undone.
    pub revocable: usize,
    /// The plan's name, and its steps that did something.
    pub done: (String, Vec<String>),
    pub before: Manifest,
    pub after: Manifest,
    template: Machine,
}

impl Undisturbed {
    /// Leaves the machine as it was, or another one like it.
    pub fn run(journey: &Journey) -> Result<(Self, Machine)> {
        let template = journey.template()?;
        let mut machine = copy_of(&template)?;
        let arguments = (journey.arguments)(&machine)?;
        let before = journey.before(&machine)?;
        let there = instants(&machine, &arguments)?;
        let after = journey.after(&machine)?;
        let done = steps_done(&machine)?;
        assert_all_have_instants(&there, "do", &done.1, &["captured", "recorded", "applied", "done"])?;
        let revocable = there.iter().position(|instant| begins_for_good(instant)).unwrap_or(there.len());
        ensure!(journey.is_final == (revocable < there.len()), "{}: is there a way back?", journey.name);
        let mut undoable = done.1.clone();
        let this = Self { there, back: Vec::new(), revocable, done, before, after, template };
        if journey.is_final {
            machine = this.another()?;
            this.before.assert_same(&journey.before(&machine)?, "another machine of the same make")?;
            this.go_there(&machine, &arguments)?;
            undoable.retain(|step| !IRREVOCABLE.contains(&stem(step)));
        }
        let back = instants(&machine, "rollback --yes")?;
        this.before.assert_same(&journey.before(&machine)?, "after an undisturbed run and its rollback")?;
        assert_all_have_instants(&back, "undo", &undoable, &["recorded", "applied", "done"])?;
        Ok((Self { back, ..this }, machine))
    }

    /// Another booted machine before the run.
    pub fn another(&self) -> Result<Machine> {
        copy_of(&self.template)
    }

    /// To the end of the run, or as far as there is a way back.
    pub fn go_there(&self, machine: &Machine, arguments: &str) -> Result<()> {
        match self.revocable == self.there.len() {
            true => product::ok(machine, arguments).map(drop),
            false => killed_at(machine, &self.there[self.revocable - 1], arguments),
        }
    }
}

fn copy_of(template: &Machine) -> Result<Machine> {
    let mut machine = Machine::copy_of(&template.tree(), "kill")?;
    machine.boot()?;
    // One journey takes away what starts it.
    machine.root("systemctl start nix-daemon.socket 2>/dev/null || true")?;
    Ok(machine)
}

/// Whether here a step is recorded that nothing undoes, in the journal's copy at least.
fn begins_for_good(instant: &str) -> bool {
    let step = instant.strip_prefix("do:").and_then(|rest| rest.strip_suffix(":1:record-copied"));
    step.is_some_and(|step| IRREVOCABLE.contains(&stem(step)))
}

/// A step's name in its plan, without the number that `for-each` gives it.
pub fn stem(step: &str) -> &str {
    step.trim_end_matches(|letter: char| letter.is_ascii_digit()).trim_end_matches('-')
}

/// All runs in the history.
pub fn runs(machine: &Machine) -> Result<Vec<Value>> {
    let mut history: Value = serde_json::from_str(&product::ok(machine, "history --json")?)?;
    let runs = history["runs"].as_array_mut().context("no runs in the history")?;
    Ok(std::mem::take(runs))
}

/// The last run in the history.
fn last_run(machine: &Machine) -> Result<Value> {
    runs(machine)?.pop().context("no run in the history")
}

/// The name of the last run's plan, and its steps that were not skipped.
fn steps_done(machine: &Machine) -> Result<(String, Vec<String>)> {
    let run = last_run(machine)?;
    let steps = run["steps"].as_array().context("no steps in the history")?;
    let done = steps.iter().filter(|step| step["state"] == "done");
    let names = done.map(|step| Ok(step["id"].as_str().context("a step without an id")?.to_owned()));
    let plan = run["plan_name"].as_str().context("a run without a plan")?;
    Ok((plan.to_owned(), names.collect::<Result<_>>()?))
}

/// Each of these steps has an instant around everything that the engine does for it.
fn assert_all_have_instants(seen: &[String], way: &str, steps: &[String], wanted: &[&str]) -> Result<()> {
    ensure!(!steps.is_empty(), "no step did anything");
    for step in steps {
        for word in wanted {
            let instant = format!("{way}:{step}:{word}");
            ensure!(seen.contains(&instant), "{instant} was not reached: no kill is tried there");
        }
    }
    Ok(())
}
