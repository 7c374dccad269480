//! What could still lead from the Nix user to root: all of it is found, and what can be closed safely is.

use super::interrupted::manifest;
use super::target::assert_migrated;
use super::{migrate, migrated, ready};
use crate::harness::layout::Layout;
use crate::harness::machine::{Machine, quote};
use crate::harness::product;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;

on_both_layouts!(what_a_migration_leaves_is_closed_and_given_back);

/// Kinds that a migration has to close by itself: whatever was a link into the store, or ran from there, for the daemon.
const CLOSED: [&str; 6] =
    ["unit-file", "unit-program", "policy-file", "policy-program", "systemd-generator", "privileged-account"];

/// Each way, as an administrator might have made it: a script that does it (`$F` is a file of a store path), the key, and a part of the name.
const PLANTED: [(&str, &str, &str); 29] = [
    ("ln -s $F /etc/systemd/system/planted.service", "unit-file", "planted.service"),
    (
        "mkdir -p /etc/systemd/system/dbus.service.d; ln -s $F /etc/systemd/system/dbus.service.d/x.conf",
        "unit-file",
        "dbus.service.d/x.conf",
    ),
    (
        "printf '[Service]\\nExecStart=%s\\n' $F >/etc/systemd/system/runs.service",
        "unit-program",
        "/nix/store",
    ),
    (
        "mkdir -p /etc/systemd/system-generators; ln -s $F /etc/systemd/system-generators/planted",
        "systemd-generator",
        "planted",
    ),
    ("ln -s $F /etc/tmpfiles.d/planted.conf", "policy-file", "tmpfiles.d/planted.conf"),
    (
        "mkdir -p /etc/sysusers.d; ln -s $F /etc/sysusers.d/planted.conf",
        "policy-file",
        "sysusers.d/planted.conf",
    ),
    ("mkdir -p /etc/sysctl.d; ln -s $F /etc/sysctl.d/planted.conf", "policy-file", "sysctl.d/planted.conf"),
    (
        "mkdir -p /etc/udev/rules.d; ln -s $F /etc/udev/rules.d/planted.rules",
        "policy-file",
        "udev/rules.d/planted.rules",
    ),
    (
        "mkdir -p /etc/polkit-1/rules.d; ln -s $F /etc/polkit-1/rules.d/planted.rules",
        "policy-file",
        "polkit-1/rules.d/planted.rules",
    ),
    (
        "mkdir -p /etc/dbus-1/system.d; ln -s $F /etc/dbus-1/system.d/planted.conf",
        "policy-file",
        "dbus-1/system.d/planted.conf",
    ),
    (
        "mkdir -p /etc/modules-load.d; ln -s $F /etc/modules-load.d/planted.conf",
        "policy-file",
        "modules-load.d/planted.conf",
    ),
    ("mkdir -p /etc/sudoers.d; ln -s $F /etc/sudoers.d/planted", "policy-file", "sudoers.d/planted"),
    ("echo \"RUN+=\\\"$F\\\"\" >/etc/udev/rules.d/run.rules", "policy-program", "/nix/store"),
    ("mkdir -p /etc/cron.d; echo \"@daily root $F\" >/etc/cron.d/planted", "cron-job", "/nix/store"),
    ("ln -s $F /etc/profile.d/planted.sh", "shell-startup", "profile.d/planted.sh"),
    ("echo \". $F\" >>/root/.bashrc", "shell-sources", "/nix/store"),
    (
        "mkdir -p /etc/fish/conf.d; echo \"source $F\" >/etc/fish/conf.d/planted.fish",
        "shell-sources",
        "/nix/store",
    ),
    (
        "echo 'export PATH=/nix/var/nix/profiles/default/bin:$PATH' >>/root/.profile",
        "search-path",
        "profiles/default/bin",
    ),
    (
        "echo 'Defaults secure_path=\"/usr/bin:/nix/var/nix/profiles/default/bin\"' >/etc/sudoers.d/path",
        "search-path",
        "profiles/default/bin",
    ),
    ("ln -s $F /usr/local/bin/planted", "program", "/usr/local/bin/planted"),
    ("chmod 0777 /usr/local/sbin", "search-path", "/usr/local/sbin"),
    ("mkdir -p /etc/ld.so.conf.d; dirname $F >/etc/ld.so.conf.d/planted.conf", "loader", "/nix/store"),
    (
        "echo $F >/etc/ld.so.preload.planted; mkdir -p /etc/pam.d; echo \"auth required $F.so\" >/etc/pam.d/planted",
        "pam-module",
        ".so",
    ),
    ("echo $F >>/etc/shells", "shells-list", "/nix/store"),
    ("usermod --shell $F root", "login-shell", "/nix/store"),
    ("groupadd -f sudo; usermod -a -G sudo nix", "privileged-account", "/etc/group"),
    ("echo 'nix ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/nix", "privileged-account", "/etc/sudoers.d/nix"),
    ("echo 'permit nopass nix' >/etc/doas.conf", "privileged-account", "/etc/doas.conf"),
    ("echo \"|$F\" >/root/core_pattern", "kernel-helper", "/nix/store"),
];

#[test]
fn every_planted_way_is_found() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "audit-planted")?;
    let clean = hits(&machine, "true")?;
    // Root's shells here will source it, so it does nothing.
    let file = machine.root("echo '# nothing' >harmless; nix-store --add harmless; rm harmless")?;
    for (script, ..) in PLANTED {
        machine.root(&format!("F={file}; {script}"))?;
    }
    // The kernel's own settings are not a container's to change; what is read there, is.
    let found = hits(&machine, "mount --bind /root/core_pattern /proc/sys/kernel/core_pattern")?;
    for (script, key, name) in PLANTED {
        let planted =
            |hits: &[Value]| hits.iter().any(|hit| hit["key"] == key && text(&hit["name"]).contains(name));
        ensure!(planted(&found), "{key} is not found after {script}: {found:#?}");
        let told = |hit: &&Value| hit["key"] == key && text(&hit["name"]).contains(name);
        let hit = found.iter().find(told).context("just found")?;
        let chain = hit["chain"].as_array().context("no chain")?;
        ensure!(
            !chain.is_empty() && !text(&hit["trigger"]).is_empty() && !text(&hit["remedy"]).is_empty(),
            "{hit:#?}"
        );
        let before: Vec<_> = clean.iter().filter(|known| **known == *hit).collect();
        ensure!(before.is_empty(), "{key} was there before it was planted: {before:#?}");
    }
    Ok(())
}

/// The migrated machine has no way that the migration could have closed; `audit --fix` closes those into root's shells, for root
/// alone; and two rollbacks give back first that, then the migration.
fn what_a_migration_leaves_is_closed_and_given_back(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "audit")?;
    let start = manifest(&machine)?;
    let report: Value = serde_json::from_str(&product::ok(&machine, "audit --json")?)?;
    ensure!(report["migrated"] == false && report["hits"] == Value::Array(vec![]), "before: {report:#}");
    if layout == Layout::Official {
        let after = report["after_migration"].as_array().context("no after_migration")?;
        ensure!(after.iter().any(|hit| hit["key"] == "shell-sources"), "{report:#}");
        // The unit, the socket, what the unit runs, and the entry of tmpfiles.
        ensure!(report["closed_by_migration"].as_u64() >= Some(3), "{report:#}");
    }
    migrate(&machine)?;
    let left = hits(&machine, "true")?;
    let keys: BTreeSet<_> = left.iter().map(|hit| text(&hit["key"])).collect();
    ensure!(!CLOSED.iter().any(|key| keys.contains(*key)), "{left:#?}");
    ensure!(keys.contains("shell-sources") == (layout == Layout::Official), "{left:#?}");
    let before = manifest(&machine)?;
    let shown = product::run(&machine, "audit --fix --dry-run --exit-code")?.exits(5)?;
    ensure!(shown.stdout.contains("undone:"), "{shown}");
    before.assert_same(&manifest(&machine)?, "after a look at what audit --fix would do")?;
    product::ok(&machine, "audit --fix --yes")?;
    let rest = hits(&machine, "true")?;
    ensure!(rest.iter().all(|hit| hit["key"] == "root-profile" && hit["danger"] == "low"), "{rest:#?}");
    let path = |user: &str| machine.user(user, "echo $PATH");
    if layout == Layout::Official {
        ensure!(
            !machine.root("echo $PATH")?.contains("/nix/"),
            "root's login shell still has Nix in its PATH"
        );
        ensure!(
            path("alice")?.contains("/nix/var/nix/profiles/default/bin"),
            "alice's does not: {}",
            path("alice")?
        );
    }
    let again = product::run(&machine, "audit --fix --yes")?.exits(0)?;
    ensure!(again.stderr.contains("nothing to do"), "{again}");
    product::ok(&machine, "verify")?;
    let back = product::run(&machine, "rollback --yes")?.exits(0)?;
    ensure!(back.stderr.contains("(migrate) is still in effect"), "{back}");
    before.assert_same(&manifest(&machine)?, "after audit --fix was rolled back")?;
    assert_migrated(&machine)?;
    // A run below one that is not undone is not undone before it.
    product::ok(&machine, "audit --fix --yes")?;
    let below = product::run(&machine, "rollback 1 --yes")?.exits(2)?;
    ensure!(below.stderr.contains("run 3 (audit-fix) came after run 1"), "{below}");
    product::ok(&machine, "rollback 3 --yes")?;
    product::ok(&machine, "rollback 1 --yes")?;
    start.assert_same(&manifest(&machine)?, "after the migration was rolled back, too")
}

fn hits(machine: &Machine, prepare: &str) -> Result<Vec<Value>> {
    let script = format!("set -e; {prepare}; {}/nix-unroot audit --json", product::DIR);
    let report: Value =
        serde_json::from_str(&machine.root(&format!("unshare -m sh -c {}", quote(&script)))?)?;
    Ok(report["hits"].as_array().context("no hits")?.clone())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
