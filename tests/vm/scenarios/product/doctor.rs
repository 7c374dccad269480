//! What others changed since a migration is found, put back, and given back.

use super::interrupted::{manifest, migrated_manifest};
use super::moved_on::{INSTALLED_AGAIN, NEWER_PACKAGES, assert_differs_only_in};
use super::target::{assert_migrated, assert_root_owned_build, assert_unprivileged_build};
use super::{migrate, migrated, ready};
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::product;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

on_both_layouts!(drifts_are_found_repaired_and_given_back);

/// What is done to the machine, and what doctor names for it: where, the step, and the cure.
const DRIFTS: [(&str, &str, &str, &str); 12] = [
    ("chown root:root /nix/store", "/nix/store", "own-store-directory", "repair"),
    (
        "chown -R root:root $(find /nix/store -mindepth 1 -maxdepth 1 -type d -name '*-*' -user nix | sort | head -1)",
        "/nix/store",
        "reown-store",
        "repair",
    ),
    ("chown root:root /nix/var/nix/db/db.sqlite", "/nix/var/nix", "reown-state", "repair"),
    (
        "rm /etc/systemd/system/nix-daemon.service",
        "/etc/systemd/system/nix-daemon.service",
        "mask-root-daemon",
        "repair",
    ),
    ("rm /etc/tmpfiles.d/nix-daemon.conf", "/etc/tmpfiles.d/nix-daemon.conf", "write-tmpfiles", "repair"),
    ("sed -i /^nix:/d /etc/subuid", "/etc/subuid", "reserve-build-uids", "repair"),
    (
        "rmdir /nix/var/nix/gc-socket || rm -r /nix/var/nix/gc-socket",
        "/nix/var/nix/gc-socket",
        "make-daemon-directories-2",
        "repair",
    ),
    ("chmod 0777 /usr/local/libexec/nix-unroot", "/usr/local/libexec/nix-unroot", "make-libexec-3", "repair"),
    (
        "chown nix /usr/local/libexec/nix-unroot/nix-daemon-gate",
        "/usr/local/libexec/nix-unroot/nix-daemon-gate",
        "install-gate",
        "repair",
    ),
    (
        "rm /etc/systemd/system/sockets.target.wants/nix-root-scan.socket",
        "/etc/systemd/system/sockets.target.wants/nix-root-scan.socket",
        "enable-scan-socket",
        "repair",
    ),
    (
        "sed -i '/^# nix-unroot/,$s/^sandbox = true/sandbox = relaxed/' /etc/nix/nix.conf",
        "/etc/nix/nix.conf",
        "configure-nix",
        "choice",
    ),
    (
        "sed -i s/NoNewPrivileges=yes/NoNewPrivileges=no/ /etc/systemd/system/nix-root-scan.service",
        "/etc/systemd/system/nix-root-scan.service",
        "write-scan-unit",
        "choice",
    ),
];

/// The machine is as it was left: nothing drifted, and everything passes.
pub fn assert_sound(machine: &Machine, when: &str) -> Result<()> {
    let said = product::run(machine, "doctor --json")?;
    let report: Value = serde_json::from_str(&said.stdout).with_context(|| format!("{when}: {said}"))?;
    ensure!(report["drifts"] == Value::Array(vec![]), "{when}: {:#}", report["drifts"]);
    ensure!(report["sound"] == true && report["verify"]["passed"] == true, "{when}: {said}");
    said.exits(0)?;
    let nothing = product::run(machine, "doctor --repair --yes")?.exits(0)?;
    ensure!(nothing.stderr.contains("nothing to do"), "{when}: {nothing}");
    Ok(())
}

fn drifts_are_found_repaired_and_given_back(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "doctor")?;
    let start = manifest(&machine)?;
    let refused = product::run(&machine, "doctor")?.exits(1)?;
    ensure!(refused.stderr.contains("not set up by nix-unroot"), "{refused}");
    migrate(&machine)?;
    assert_sound(&machine, "after a migration")?;
    let migrated = migrated_manifest(&machine)?;
    for (script, ..) in DRIFTS {
        machine.root(script)?;
    }
    machine.root("systemctl daemon-reload; systemctl restart nix-root-scan.socket")?;
    let drifted = migrated_manifest(&machine)?;
    let found = drifts(&machine)?;
    for (script, what, step, cure) in DRIFTS {
        let is_it = |drift: &&Value| drift["what"] == what && drift["step"] == step;
        let drift =
            found.iter().find(is_it).with_context(|| format!("{script}: {what} is not found: {found:#?}"))?;
        ensure!(drift["cure"] == cure && drift["breaks"] != "" && drift["remedy"] != "", "{drift:#}");
    }
    ensure!(found.len() == DRIFTS.len(), "more drifted than was done: {found:#?}");
    let told = product::run(&machine, "doctor")?.exits(1)?.stdout;
    for part in [
        "remedy: nix-unroot doctor --repair",
        "since: changed",
        "conflict: /etc/nix/nix.conf",
        "root:nix 1775",
        "12 things drifted",
    ] {
        ensure!(told.contains(part), "{part:?} is missing: {told}");
    }
    let shown = product::run(&machine, "doctor --repair --dry-run --exit-code")?.exits(5)?;
    ensure!(shown.stdout.contains("undone:"), "{shown}");
    let refused = product::run(&machine, "doctor --repair --yes")?.exits(3)?;
    ensure!(
        refused.stderr.contains("+sandbox = relaxed") && refused.stderr.contains("--keep ours"),
        "{refused}"
    );
    drifted.assert_same(&migrated_manifest(&machine)?, "after doctor only looked")?;

    product::ok(&machine, "doctor --repair --yes --keep ours")?;
    assert_migrated(&machine)?;
    assert_sound(&machine, "after a repair")?;
    let repaired = migrated_manifest(&machine)?;
    migrated.assert_same(&repaired, "after a repair")?;

    let back = product::run(&machine, "rollback --yes")?.exits(0)?;
    ensure!(back.stderr.contains("(migrate) is still in effect"), "{back}");
    drifted.assert_same(&migrated_manifest(&machine)?, "after the repair was rolled back")?;
    // Given again, because it died when all was done, say, it does not undo the migration.
    let again = product::run(&machine, "rollback --yes")?.exits(3)?;
    ensure!(
        again.stderr.contains("run 2 (repair) is undone already")
            && again.stderr.contains("nix-unroot rollback 1"),
        "{again}"
    );
    let named = product::run(&machine, "rollback 2 --yes")?.exits(0)?;
    ensure!(named.stderr.contains("nothing to do"), "{named}");
    let unknown = product::run(&machine, "rollback 7 --yes")?.exits(2)?;
    ensure!(unknown.stderr.contains("there is no run 7"), "{unknown}");
    drifted.assert_same(&migrated_manifest(&machine)?, "after rollbacks of what is undone")?;
    product::ok(&machine, "rollback 1 --yes --keep ours")?;
    start.assert_same(&manifest(&machine)?, "after the migration was rolled back, too")
}

/// What is gone is made anew as whose it is since the migration, not as whose it was.
#[test]
fn what_is_gone_is_the_daemons_again() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "doctor-gone")?;
    let logs = "/nix/var/log/nix";
    let was = machine.root(&format!("stat -c '%U:%G %a' {logs}; rm -r {logs}"))?;
    ensure!(was.starts_with("nix:nix "), "{was}");
    product::ok(&machine, "doctor --repair --yes")?;
    let now = machine.root(&format!("stat -c '%U:%G %a' {logs}"))?;
    ensure!(now == was, "it is {now}, and was {was}");
    assert_sound(&machine, "after a directory of logs was made anew")
}

/// A package upgrade with its newer nix.conf, and another installer that takes everything back: found, with who is behind it, and put back.
#[test]
fn a_package_upgrade_is_repaired() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "doctor-upgrade")?;
    machine.root(NEWER_PACKAGES)?;
    let start = manifest(&machine)?;
    migrate(&machine)?;
    machine.root(
        "DEBIAN_FRONTEND=noninteractive dpkg --force-confask --force-confnew -i /root/debs/*.deb 2>&1",
    )?;
    let found = drifts(&machine)?;
    let conf =
        found.iter().find(|drift| drift["what"] == "/etc/nix/nix.conf").context("nix.conf is not named")?;
    ensure!(conf["cure"] == "repair" && text(&conf["package"]).starts_with("nix-setup-systemd "), "{conf:#}");
    let upgraded = migrated_manifest(&machine)?;
    product::ok(&machine, "doctor --repair --yes")?;
    assert_migrated(&machine)?;
    assert_sound(&machine, "after an upgrade and a repair")?;
    machine.root("grep -q 'A newer file' /etc/nix/nix.conf; grep -q '^store = daemon' /etc/nix/nix.conf")?;
    product::ok(&machine, "rollback --yes")?;
    upgraded.assert_same(&migrated_manifest(&machine)?, "after the repair was rolled back")?;
    product::ok(&machine, "rollback 1 --yes")?;
    let named = [
        "/etc/nix/nix.conf",
        "/usr/lib/systemd/system/nix-daemon.service",
        "/usr/lib/tmpfiles.d/nix-daemon.conf",
        "/var/lib/dpkg/",
    ];
    assert_differs_only_in(&start, &machine, &named, "after an upgrade and two rollbacks")
}

/// Accounts come back with the ids that they had, and their subids with them.
#[test]
fn deleted_accounts_come_back() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "doctor-accounts")?;
    let start = manifest(&machine)?;
    migrate(&machine)?;
    let ids = "id nix; id nix-root-scan; cat /etc/subuid /etc/subgid";
    let before = machine.root(ids)?;
    machine.root(
        "systemctl stop nix-daemon.socket nix-daemon-gate.service nix-root-scan.service
         userdel nix; userdel nix-root-scan",
    )?;
    let found = drifts(&machine)?;
    let user = found.iter().find(|drift| drift["what"] == "nix" && drift["step"] == "create-nix-user");
    ensure!(user.is_some_and(|user| user["cure"] == "repair"), "{found:#?}");
    product::ok(&machine, "doctor --repair --yes")?;
    assert_sound(&machine, "after accounts were repaired")?;
    ensure!(machine.root(ids)? == before, "not the same accounts: {before}");
    product::ok(&machine, "rollback --yes")?;
    machine.root("! id nix")?;
    product::ok(&machine, "rollback 1 --yes")?;
    start.assert_same(&manifest(&machine)?, "after two rollbacks")
}

#[test]
fn another_installer_is_repaired() -> Result<()> {
    let (machine, _) = ready(Layout::Official, "doctor-again")?;
    migrate(&machine)?;
    machine.root(INSTALLED_AGAIN)?;
    let found = drifts(&machine)?;
    let steps: Vec<_> = found.iter().map(|drift| text(&drift["step"])).collect();
    for step in [
        "stop-root-daemon",
        "mask-root-daemon",
        "write-daemon-socket",
        "write-tmpfiles",
        "configure-nix",
        "reown-store",
        "own-store-directory",
    ] {
        ensure!(steps.contains(&step), "{step} is missing: {found:#?}");
    }
    product::ok(&machine, "doctor --repair --yes")?;
    assert_migrated(&machine)?;
    assert_sound(&machine, "after another installer and a repair")?;
    assert_unprivileged_build(&machine, "bob", "bob-after-repair")?;
    product::ok(&machine, "rollback --yes")?;
    machine
        .root("systemctl is-active nix-daemon.service; test $(stat -c %U /nix/store/*-hostname) = root")?;
    product::ok(&machine, "rollback 1 --yes")?;
    assert_root_owned_build(&machine, "bob", "bob-after-all")
}

fn drifts(machine: &Machine) -> Result<Vec<Value>> {
    let said = product::run(machine, "doctor --json")?.exits(1)?;
    let report: Value = serde_json::from_str(&said.stdout)?;
    Ok(report["drifts"].as_array().context("no drifts")?.clone())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
