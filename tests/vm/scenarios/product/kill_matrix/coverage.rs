//! Every step of every plan is done, and so killed, in one of the journeys.

use super::journeys::JOURNEYS;
use super::undisturbed::{Undisturbed, stem};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::path::Path;

/// Steps that no journey does: plan, step, where else they are tested.
const ELSEWHERE: [(&str, &str, &str); 3] = [
    (
        "migrate",
        "write-apparmor-profile",
        "machines share the kernel's profiles: killed in `virtual_machine`",
    ),
    ("migrate", "load-apparmor-profile", "the same"),
    ("migrate", "write-start-program", "the installation without an init system takes it over"),
];

#[test]
fn every_step_of_every_plan_is_done_and_undone() -> Result<()> {
    let (mut done, mut failures, mut batches) = (BTreeSet::new(), Vec::new(), 0);
    for journey in &JOURNEYS {
        let run = match Undisturbed::run(journey) {
            Ok((run, _)) => run,
            Err(error) => {
                failures.push(format!("{}: {error:#}", journey.name));
                continue;
            }
        };
        println!(
            "{}: {} steps, {} instants there, {} back",
            journey.name,
            run.done.1.len(),
            run.there.len(),
            run.back.len()
        );
        batches += run.there.iter().filter(|instant| instant.ends_with(":owners-recorded")).count();
        let (plan, steps) = run.done;
        done.extend(steps.iter().map(|step| (plan.clone(), stem(step).to_owned())));
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n\n"));
    ensure!(batches >= 3, "only {batches} batches of owners are recorded, so no kill is tried there");
    let elsewhere = ELSEWHERE.map(|(plan, step, _)| (plan.to_owned(), step.to_owned()));
    let missing: Vec<_> =
        shipped()?.into_iter().filter(|step| !done.contains(step) && !elsewhere.contains(step)).collect();
    ensure!(missing.is_empty(), "no journey does these steps, so no kill is tried there: {missing:?}");
    Ok(())
}

/// Every step that a plan has itself, with the plan's name.
fn shipped() -> Result<BTreeSet<(String, String)>> {
    let mut steps = BTreeSet::new();
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("plans"))? {
        let path = file?.path();
        // Those of Macs are killed on a simulated one: tests/macos.
        if path.to_string_lossy().ends_with("-macos.toml") {
            continue;
        }
        let plan: toml::Table = std::fs::read_to_string(path)?.parse()?;
        let own = plan.get("step").and_then(toml::Value::as_array).into_iter().flatten();
        // What is taken over from another plan is done there.
        for id in own.filter_map(|step| step.get("id")?.as_str()) {
            let name = plan["name"].as_str().context("a plan without a name")?;
            steps.insert((name.to_owned(), id.to_owned()));
        }
    }
    ensure!(steps.len() > 80, "only {} steps in the plans", steps.len());
    Ok(steps)
}
