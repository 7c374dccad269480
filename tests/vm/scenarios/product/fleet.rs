//! Many machines at once: the Ansible role, run by ansible-playbook on a good machine, one that is blocked, and one that fails.

use super::interrupted::manifest;
use super::target::assert_migrated;
use super::unattended::BREAK;
use crate::harness::ansible::{Fleet, Recap};
use crate::harness::product;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;

/// The machines, in the inventory's order.
const NAMES: [&str; 3] = ["blocked", "failing", "good"];

#[test]
fn a_fleet_is_looked_at_migrated_and_rolled_back() -> Result<()> {
    let fleet = Fleet::boot(&NAMES)?;
    fleet.machine("blocked")?.root("chmod 0600 /etc/nix/nix.conf")?;
    fleet.machine("failing")?.root(BREAK)?;
    programs_are_brought_and_reports_collected(&fleet)?;
    let before = [
        manifest(fleet.machine("blocked")?)?,
        manifest(fleet.machine("failing")?)?,
        manifest(fleet.machine("good")?)?,
    ];
    let unchanged = |when: &str, names: &[&str]| -> Result<()> {
        for (name, before) in NAMES.iter().zip(&before).filter(|(name, _)| names.contains(name)) {
            before.assert_same(&manifest(fleet.machine(name)?)?, &format!("{name}, {when}"))?;
        }
        Ok(())
    };

    // Check mode is the dry run: what would be changed is "changed", and nothing is.
    let words = ["-e", "{\"nix_unroot_stages\": [\"100%\"]}"];
    let (outcome, recap) = fleet.play("migrate.yml", &[&words[..], &["--check"]].concat())?;
    ended(&recap, &[("blocked", 0, 1), ("failing", 1, 0), ("good", 1, 0)], &outcome)?;
    ensure!(fleet.report("good", "dry-run")?["would_change"] == true);
    unchanged("after check mode", &NAMES)?;

    // While the stop file is there, nothing begins.
    fs::write(fleet.path("STOP"), "")?;
    let (outcome, recap) = fleet.play("migrate.yml", &words)?;
    ended(&recap, &[("blocked", 0, 0), ("failing", 0, 0), ("good", 0, 0)], &outcome)?;
    fs::remove_file(fleet.path("STOP"))?;

    // All three at once.
    let (outcome, recap) = fleet.play("migrate.yml", &words)?;
    ended(&recap, &[("blocked", 0, 1), ("failing", 0, 1), ("good", 1, 0)], &outcome)?;
    for part in ["status 3", "status 1", "broken", "nix-conf-only-root-can-read"] {
        ensure!(outcome.stdout.contains(part), "{part:?} is missing: {outcome}");
    }
    unchanged("after the migration", &["blocked", "failing"])?;
    assert_migrated(fleet.machine("good")?)?;
    ensure!(fleet.report("good", "migrate")?["outcome"] == "applied");
    ensure!(fleet.report("failing", "migrate")?["outcome"] == "failed-and-undone");
    ensure!(fleet.report("blocked", "migrate")?["blocked"] == true);
    let run = |name: &str| Ok::<_, anyhow::Error>(fleet.report(name, "history")?["runs"][0].clone());
    ensure!(run("good")?["in_effect"] == true && run("failing")?["in_effect"] == false);
    ensure!(
        run("failing")?["error"].as_str().is_some_and(|error| error.contains("useradd")),
        "{:#}",
        run("failing")?
    );
    ensure!(run("blocked")?.is_null(), "a blocked machine has no run");

    good_is_done_and_goes_back(&fleet)?;
    unchanged("after the rollback", &["good"])?;
    stages_stop_at_the_first_failure(&fleet)?;
    unchanged("after stages that were stopped", &NAMES)
}

/// The first play brings the programs, and is told apart from the second by that alone.
fn programs_are_brought_and_reports_collected(fleet: &Fleet) -> Result<()> {
    let source = format!("nix_unroot_source={}", product::directory()?.display());
    let (outcome, recap) = fleet.play("report.yml", &["-e", &source])?;
    ensure!(recap.values().all(|counts| counts["changed"] > 0 && counts["failed"] == 0), "{outcome}");
    let (outcome, recap) = fleet.play("report.yml", &["-e", &source])?;
    ended(&recap, &[("blocked", 0, 0), ("failing", 0, 0), ("good", 0, 0)], &outcome)?;
    for name in NAMES {
        let findings = fleet.report(name, "inspect")?["findings"].clone();
        let keys: Vec<_> = findings
            .as_array()
            .context("no findings")?
            .iter()
            .map(|finding| finding["key"].clone())
            .collect();
        ensure!(
            keys.contains(&"nix-conf-only-root-can-read".into()) == (name == "blocked"),
            "{name}: {keys:?}"
        );
        ensure!(fleet.report(name, "audit")?["hits"].is_array(), "{name} has no audit");
        ensure!(fleet.report(name, "history")?["runs"] == serde_json::json!([]), "{name} has runs");
    }
    Ok(())
}

/// A second migration changes nothing, nor does a second rollback.
fn good_is_done_and_goes_back(fleet: &Fleet) -> Result<()> {
    for (playbook, words, changed) in [
        ("migrate.yml", &["--limit", "good"][..], 0),
        ("migrate.yml", &["--limit", "good", "--check"], 0),
        ("verify.yml", &["--limit", "good"], 0),
        ("rollback.yml", &["--limit", "good", "--check"], 1),
        ("rollback.yml", &["--limit", "good"], 1),
        ("rollback.yml", &["--limit", "good"], 0),
    ] {
        let (outcome, recap) = fleet.play(playbook, words)?;
        ended(&recap, &[("good", changed, 0)], &outcome)?;
    }
    ensure!(fleet.report("good", "verify")?["passed"] == true);
    ensure!(fleet.report("good", "rollback")?["outcome"] == "nothing-to-do");
    Ok(())
}

/// As the playbook comes: one machine first, and it is the blocked one.
fn stages_stop_at_the_first_failure(fleet: &Fleet) -> Result<()> {
    let (outcome, recap) = fleet.play("migrate.yml", &[])?;
    ensure!(recap.keys().eq(["blocked"]) && outcome.status != 0, "{outcome}");
    Ok(())
}

/// For each machine: how many tasks changed it, and how many failed.
fn ended(
    recap: &BTreeMap<String, Recap>,
    expected: &[(&str, u32, u32)],
    outcome: &crate::harness::exec::Outcome,
) -> Result<()> {
    let seen: Vec<_> =
        recap.iter().map(|(name, counts)| (name.as_str(), counts["changed"], counts["failed"])).collect();
    ensure!(seen == expected, "{seen:?}, should be {expected:?}: {outcome}");
    ensure!((outcome.status == 0) == expected.iter().all(|(_, _, failed)| *failed == 0), "{outcome}");
    Ok(())
}
