//! Runs that nobody watches: settings from files and variables, exit statuses, documents, logs, and a second time of everything.

use super::interrupted::manifest;
use super::ready;
use crate::harness::exec::Outcome;
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::{nixcmd, product};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A tool that a migration needs, broken: the step that calls it fails.
pub const BREAK: &str = "mv /usr/sbin/useradd /root/; printf '#!/bin/sh\necho broken >&2; exit 9\n' >/usr/sbin/useradd; chmod 755 /usr/sbin/useradd";
const MEND: &str = "mv /root/useradd /usr/sbin/useradd";

/// A mistake in what a fleet distributes changes nothing, and is told with its place.
#[test]
fn a_mistake_stops_it_before_anything_is_changed() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "unattended-mistakes")?;
    nixcmd::trust(&machine, "alice")?;
    let before = manifest(&machine)?;
    let program = format!("{}/nix-unroot", product::DIR);
    for (file, variable, parts) in [
        ("yes = true\n[migrate]\nkeep-patrial = true", "", ["line 3", "\"keep-partial\""]),
        ("yes = true\n[migrate]\nkeep-partial = 1", "", ["line 3", "true or false"]),
        (
            "yes = true",
            "NIX_UNROOT_MIGRATE_DRYRUN=1",
            ["NIX_UNROOT_MIGRATE_DRYRUN", "NIX_UNROOT_MIGRATE_DRY_RUN"],
        ),
        ("yes = true", "NIX_UNROOT_NIX_UID=x", ["NIX_UNROOT_NIX_UID", "invalid digit"]),
    ] {
        machine.write_file("/root/settings.toml", "0644", file)?;
        let script = format!("{variable} NIX_UNROOT_CONFIG=/root/settings.toml {program} migrate");
        let refused = machine.try_root(&script)?.exits(2)?;
        ensure!(parts.iter().all(|part| refused.stderr.contains(part)), "{parts:?}: {refused}");
    }
    // The mistakes above would have been migrations; this is how they were meant.
    let script =
        format!("NIX_UNROOT_MIGRATE_DRY_RUN=1 {program} --config settings.toml migrate --exit-code --json");
    let document = parse(&machine.try_root(&script)?.exits(5)?)?;
    ensure!(document["would_change"] == true && document["changed"] == false, "{document:#}");
    let asked = product::run(&machine, "migrate --json")?.exits(2)?;
    ensure!(asked.stderr.contains("--yes") && parse(&asked)?["changed"] == false, "{asked}");

    machine.root(&format!("{program} config --example >/etc/nix-unroot.toml; sed -i 's/^#drain-timeout = .*/drain-timeout = 77/' /etc/nix-unroot.toml"))?;
    let shown = machine
        .root(&format!("NIX_UNROOT_PROXY=http://a:b@proxy {program} config --json --nix-user store"))?;
    let shown: Value = serde_json::from_str(&shown)?;
    let setting = |key: &str| {
        let found =
            shown["settings"].as_array().and_then(|all| all.iter().find(|setting| setting["key"] == key));
        found.map(|setting| (text(setting, "value"), text(setting, "source")))
    };
    for (key, value, source) in [
        ("drain-timeout", "77", "file"),
        ("proxy", "http://***@proxy", "variable"),
        ("nix-user", "store", "flag"),
        ("subid-count", "8388608", "default"),
    ] {
        ensure!(setting(key) == Some((value.to_owned(), source.to_owned())), "{key}: {:?}", setting(key));
    }
    machine.root("rm /etc/nix-unroot.toml /root/settings.toml")?;
    before.assert_same(&manifest(&machine)?, "after mistakes and looks")
}

/// Every command that changes things, each exit status, and everything twice.
#[test]
fn a_second_time_changes_nothing_and_each_end_has_its_status() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "unattended")?;
    nixcmd::trust(&machine, "alice")?;

    machine.root("chmod 0600 /etc/nix/nix.conf")?;
    ends(&machine, "migrate --yes", 3, "", false)?;
    machine.root("chmod 0644 /etc/nix/nix.conf")?;

    let before = manifest(&machine)?;
    machine.root(BREAK)?;
    ends(&machine, "migrate --yes", 1, "failed-and-undone", false)?;
    ends(&machine, "migrate --yes --keep-partial", 4, "stuck", true)?;
    machine.root(MEND)?;
    ends(&machine, "rollback --yes --exit-code", 5, "undone", true)?;
    before.assert_same(&manifest(&machine)?, "after a failure that was left, and a rollback")?;
    ends(&machine, "rollback --yes --exit-code", 0, "nothing-to-do", false)?;

    nothing_of_a_question_is_lost(&machine)?;
    ends(&machine, "migrate --yes --exit-code", 0, "nothing-to-do", false)?;
    ends(&machine, "resume --yes", 0, "nothing-to-do", false)?;
    ends(&machine, "audit --fix --yes --exit-code", 5, "applied", true)?;
    ends(&machine, "audit --fix --yes --exit-code", 0, "nothing-to-do", false)?;
    what_was_printed_can_be_read_later(&machine)?;
    ends(&machine, "rollback --yes", 0, "undone", true)?;
    // The migration is another run, which nobody named.
    ends(&machine, "rollback --yes", 3, "unnamed", false)?;
    ends(&machine, "rollback 4 --yes", 0, "nothing-to-do", false)?;
    ends(&machine, "rollback 3 --yes", 0, "undone", true)?;
    ends(&machine, "rollback --yes", 0, "nothing-to-do", false)?;
    before.assert_same(&manifest(&machine)?, "after everything was rolled back")?;
    ends(&machine, "uninstall --yes --exit-code", 5, "final", true)?;
    ends(&machine, "uninstall --yes --exit-code", 0, "nothing-to-do", false)
}

/// Runs it with `--json`: the exit status, the outcome in the document (where there is one), and whether it says that something
/// was changed, in the document and in the last line of the messages.
fn ends(machine: &Machine, arguments: &str, status: i32, outcome: &str, changed: bool) -> Result<()> {
    let ended = product::run(machine, &format!("{arguments} --json"))?.exits(status)?;
    let document = parse(&ended)?;
    ensure!(document["changed"] == changed, "{ended}");
    ensure!(outcome.is_empty() || document["outcome"] == outcome, "{ended}");
    let told = ended.stderr.lines().last().unwrap_or_default();
    ensure!(outcome.is_empty() || told == format!("changed: {changed}"), "{ended}");
    Ok(())
}

/// With `--yes` findings, plan and question are told all the same: as text, and as JSON for a log.
fn nothing_of_a_question_is_lost(machine: &Machine) -> Result<()> {
    machine.root("chmod 0600 /etc/nix/nix.conf")?;
    let told = product::run(machine, "migrate --yes")?.exits(3)?;
    ensure!(told.stdout.contains("nix-conf-only-root-can-read"), "{told}");
    let logged = product::run(machine, "migrate --yes --json --log-format json")?.exits(3)?;
    let found =
        events(&logged.stderr)?.into_iter().find(|event| event["key"] == "nix-conf-only-root-can-read");
    ensure!(found.context("no finding")?["level"] == "error", "{logged}");
    machine.root("chmod 0644 /etc/nix/nix.conf")?;

    let applied = product::run(machine, "migrate --yes --json --log-format json --exit-code")?.exits(5)?;
    ensure!(parse(&applied)?["outcome"] == "applied", "{applied}");
    let events = events(&applied.stderr)?;
    let named = |name: &str| events.iter().filter(|event| event["event"] == name).collect::<Vec<_>>();
    ensure!(text_of(&named("plan")).contains("hand Nix to"), "{applied}");
    ensure!(!named("finding").is_empty(), "{applied}");
    let [question] = named("question")[..] else { anyhow::bail!("no question: {applied}") };
    ensure!(question["answer"] == "yes" && question["by"] == "--yes", "{question:#}");
    ensure!(text(question, "question") == "Migrate this machine?", "{question:#}");
    let done = |event: &&&Value| event["result"] == "done" && event["step"] == "reown-store";
    ensure!(named("step").iter().any(|event| done(&event)), "{applied}");
    ensure!(
        events.last().is_some_and(|event| event["event"] == "result" && event["changed"] == true),
        "{applied}"
    );

    // The journal has the same, in the same order.
    let number = parse(&applied)?["run"].as_i64().context("no run")?;
    let run = number.to_string();
    let history: Value = serde_json::from_str(&product::ok(machine, &format!("history {run} --json"))?)?;
    let kept = history["runs"][0]["log"].as_array().context("no log")?.clone();
    let texts = |events: &[Value]| events.iter().map(|event| text(event, "text")).collect::<Vec<_>>();
    ensure!(texts(&kept) == texts(&events), "printed: {:#?}\nkept: {:#?}", texts(&events), texts(&kept));
    ensure!(kept.iter().all(|event| event["run"].as_i64() == Some(number)), "{kept:#?}");
    Ok(())
}

fn what_was_printed_can_be_read_later(machine: &Machine) -> Result<()> {
    let history: Value = serde_json::from_str(&product::ok(machine, "history --json")?)?;
    let runs = history["runs"].as_array().context("no runs")?;
    let rows: Vec<_> = runs
        .iter()
        .map(|run| {
            (text(run, "plan_name"), text(run, "state"), run["in_effect"] == true, run["error"].is_string())
        })
        .collect();
    let row =
        |name: &str, state: &str, in_effect, error| (name.to_owned(), state.to_owned(), in_effect, error);
    let expected = [
        row("migrate", "undone", false, true),
        row("migrate", "undone", false, true),
        row("migrate", "applied", true, false),
        row("audit-fix", "applied", true, false),
    ];
    ensure!(rows == expected, "{rows:#?}");
    ensure!(runs.iter().all(|run| run["log"].is_null()), "an inventory is short");
    let id = machine.root("cat /etc/machine-id")?;
    ensure!(text(&history, "machine").len() == 32 && text(&history, "machine") != id, "{history:#}");

    let log = product::ok(machine, "history 1 --log")?;
    for part in ["Migrate this machine? yes (--yes)", "broken", "changed: false"] {
        ensure!(log.contains(part), "{part:?} is missing: {log}");
    }
    let mode = machine.root("stat -c '%U %a' /var/lib/nix-unroot/run-1.log")?;
    ensure!(mode == "root 600", "{mode}");
    Ok(())
}

fn parse(outcome: &Outcome) -> Result<Value> {
    serde_json::from_str(&outcome.stdout).with_context(|| outcome.to_string())
}

/// Standard error, each line an object with a time, a level and a name.
fn events(stderr: &str) -> Result<Vec<Value>> {
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).with_context(|| format!("no object: {line}"))?;
        ensure!(["time", "level", "event", "text"].iter().all(|name| event[*name].is_string()), "{line}");
        Ok(event)
    };
    stderr.lines().map(event).collect()
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().to_owned()
}

fn text_of(events: &[&Value]) -> String {
    events.iter().map(|event| text(event, "text")).collect()
}
