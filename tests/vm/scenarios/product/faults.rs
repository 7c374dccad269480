//! Faults in the middle of a run: the machine is as before, or the message says how to go on, and that makes it so.

use super::interrupted::manifest;
use super::{migrate, ready};
use crate::harness::exec::{Outcome, host};
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::manifest::Manifest;
use crate::harness::product;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::time::Duration;

const PROGRAM: &str = "/root/nix-unroot/nix-unroot";

/// Fails unless the machine is as `before`: at once, or after a rollback that the message named. Returns which.
fn assert_recovers(
    machine: &Machine,
    before: &Manifest,
    outcome: &Outcome,
    is_rollback: bool,
    when: &str,
) -> Result<&'static str> {
    let how = match outcome.status {
        0 => "done all the same",
        1 if is_rollback => "not begun",
        1 => "undone",
        3 => "refused",
        4 => "stuck",
        _ => bail!("{when}: {outcome}"),
    };
    if outcome.status == 4 {
        ensure!(
            outcome.stderr.contains("nix-unroot rollback"),
            "{when}: it says not how to go on: {outcome}"
        );
    }
    // On the way back much is undone before something fails.
    if let (Some(failed), false) = (outcome.stderr.find(" failed "), is_rollback) {
        let undone = outcome.stderr.find(" undone ").unwrap_or(usize::MAX);
        ensure!(failed < undone, "{when}: something was undone before the error was shown: {outcome}");
    }
    if is_rollback || matches!(outcome.status, 0 | 4) {
        product::ok(machine, "rollback --yes").with_context(|| format!("{when}: {outcome}"))?;
    }
    before.assert_same(&manifest(machine)?, &format!("{when}: {outcome}"))?;
    Ok(how)
}

/// System calls of the main thread that fail, and how: the kinds of them that a run changes things with.
const CALLS: [(&str, &str); 12] = [
    ("fsync", "EIO"),
    ("pwrite64", "ENOSPC"),
    ("rename", "EROFS"),
    ("openat", "EIO"),
    ("write", "ENOSPC"),
    ("unlink", "EROFS"),
    ("fchown", "EPERM"),
    ("mkdir", "ENOSPC"),
    ("symlink", "ENOSPC"),
    ("fchmod", "EIO"),
    ("ftruncate", "EIO"),
    ("syncfs", "EIO"),
];

/// How many faults are tried unless `NIX_UNROOT_FAULTS` says otherwise.
const FAULTS: usize = 24;

/// One call fails, or that one and all of its kind after it, as on a disk that fills up or goes read-only.
#[test]
fn any_system_call_may_fail() -> Result<()> {
    let fresh = || -> Result<(Machine, Manifest)> {
        let (machine, _) = ready(Layout::Debian, "faults")?;
        let before = manifest(&machine)?;
        Ok((machine, before))
    };
    let (mut machine, mut before) = fresh()?;
    let names = CALLS.map(|(name, _)| name).join(",");
    let ways = ["migrate", "rollback"];
    let log = |way: &str| {
        let traced = format!("strace -o /run/calls -e trace={names} {PROGRAM} {way} --yes >/dev/null 2>&1");
        machine.root(&format!("{traced}; cat /run/calls"))
    };
    let logs = [log(ways[0])?, log(ways[1])?];
    let faults = std::env::var("NIX_UNROOT_FAULTS").map_or(Ok(FAULTS), |text| text.parse::<usize>())?;
    let (mut ends, mut failures) = (BTreeMap::new(), Vec::new());
    for number in 0..faults {
        let (name, error) = CALLS[number % CALLS.len()];
        let way = number / CALLS.len() % ways.len();
        let calls = logs[way].lines().filter(|line| line.starts_with(&format!("{name}("))).count();
        ensure!(calls > 0, "a {} makes no call of {name}: {} calls", ways[way], logs[way].lines().count());
        // Spread over the run: golden-ratio steps come near every instant, and never twice to the same one.
        let instant = 1 + (number * 618 + 309) % 1000 * calls / 1000;
        let persists = if number % 2 == 1 { "+" } else { "" };
        let fault = format!("{name}:error={error}:when={instant}{persists}");
        let end = recovers_from(&machine, &before, ways[way], &fault);
        let told = end.as_ref().copied().unwrap_or("FAILED");
        println!("{}: {fault:40} of {calls:4} calls: {told}", ways[way]);
        *ends.entry(told).or_insert(0) += 1;
        if let Err(error) = end {
            println!("{error:#}");
            failures.push(format!("{error:#}"));
            (machine, before) = fresh()?;
        }
    }
    println!("{faults} faults: {ends:?}");
    let late = ends.get("came too late").copied().unwrap_or(0);
    ensure!(late * 10 <= faults, "{late} of {faults} came too late");
    ensure!(failures.is_empty(), "{} of {faults}: {}", failures.len(), failures.join("\n\n"));
    Ok(())
}

/// How a migration, or its rollback, ends in which this system call fails, and that the machine is as before then.
fn recovers_from(machine: &Machine, before: &Manifest, way: &str, fault: &str) -> Result<&'static str> {
    let is_rollback = way == "rollback";
    if is_rollback {
        migrate(machine)?;
    }
    let run = format!(
        "strace -o /run/injected -e trace={} -e inject={fault} {PROGRAM} {way} --yes",
        fault.split(':').next().unwrap_or_default()
    );
    let outcome = machine.shell("root", &run)?.timeout(Duration::from_secs(600)).run()?;
    let injected = machine.root("grep -c INJECTED /run/injected || true")?;
    let how = assert_recovers(machine, before, &outcome, is_rollback, fault)?;
    // The calls were counted in another run, which need not have made as many.
    // Whatever was not synced may be lost, so that is never done.
    ensure!(injected == "0" || !fault.starts_with("syncfs") || outcome.status != 0, "{fault}: {outcome}");
    Ok(if injected == "0" { "came too late" } else { how })
}

/// Things that go wrong on machines: what is done to it, how a migration ends at least, what it says, and what undoes the former.
const TROUBLES: [(&str, i32, &str, &str); 8] = [
    (
        "mount --bind /usr/local /usr/local; mount -o remount,bind,ro /usr/local",
        3,
        "cannot be written to",
        "umount /usr/local",
    ),
    (
        "mount --bind /etc/systemd /etc/systemd; mount -o remount,bind,ro /etc/systemd",
        1,
        "Read-only file system",
        "umount /etc/systemd",
    ),
    ("chattr +i /etc/nix/nix.conf", 1, "/etc/nix/nix.conf", "chattr -i /etc/nix/nix.conf"),
    ("chattr +i /etc/passwd", 1, "useradd", "chattr -i /etc/passwd"),
    ("chattr +i /nix/var/nix/profiles", 1, "chattr -i", "chattr -i /nix/var/nix/profiles"),
    (
        "mv /usr/sbin/useradd /root; printf '#!/bin/sh\\necho no luck >&2; exit 1\\n' >/usr/sbin/useradd; chmod 755 /usr/sbin/useradd",
        1,
        "no luck",
        "mv /root/useradd /usr/sbin/useradd",
    ),
    (
        "d=/etc/systemd/system/nix-root-scan.socket.d; mkdir $d; printf '[Socket]\\nListenStream=/proc/no/socket\\n' >$d/x.conf; systemctl daemon-reload",
        1,
        "nix-root-scan.socket",
        "rm -r /etc/systemd/system/nix-root-scan.socket.d; systemctl daemon-reload",
    ),
    (
        // Hangs once, when systemd is to read its units for the second time.
        "mv /usr/bin/systemctl /root; cat >/usr/bin/systemctl <<'END'\n#!/bin/sh\n[ \"$1\" = daemon-reload ] && echo >>/run/reloads && [ $(wc -l </run/reloads) = 2 ] && sleep 1000\nexec /root/systemctl \"$@\"\nEND\nchmod 755 /usr/bin/systemctl; rm -f /run/reloads",
        1,
        "systemctl daemon-reload did not end within 20 s",
        "mv /root/systemctl /usr/bin/systemctl; ! pgrep -fx 'sleep 1000'",
    ),
];

/// Runs a script in the machine; chattr(1), which it does not have, on the host.
fn make(machine: &Machine, script: &str) -> Result<()> {
    match script.strip_prefix("chattr ").and_then(|words| words.split_once(" /")) {
        Some((flag, path)) => host("chattr").arg(flag).arg(machine.tree().join(path)).ok(),
        None => machine.root(script),
    }
    .map(drop)
}

#[test]
fn trouble_on_the_machine_undoes_a_run() -> Result<()> {
    let (machine, _) = ready(Layout::Official, "trouble")?;
    let before = manifest(&machine)?;
    for (trouble, status, said, end) in TROUBLES {
        make(&machine, trouble)?;
        let limit = if said.contains("did not end") { "NIX_UNROOT_COMMAND_LIMIT=20" } else { "" };
        let run = format!("{limit} {PROGRAM} migrate --yes");
        let outcome = machine.shell("root", &run)?.timeout(Duration::from_secs(600)).run()?;
        make(&machine, end)?;
        let told = format!("{}{}", outcome.stdout, outcome.stderr);
        ensure!(outcome.status == status && told.contains(said), "{trouble}: {outcome}");
        let how = assert_recovers(&machine, &before, &outcome, false, trouble)?;
        println!(
            "{how}: {}",
            outcome.stderr.lines().find(|line| line.contains("failed")).unwrap_or_default()
        );
    }
    Ok(())
}

/// A signal stops a run after the step that it is at: forward, what was done is undone; back, it says how to go on.
#[test]
fn a_signal_stops_after_the_step() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "signals")?;
    let before = manifest(&machine)?;
    for (signal, command, instant, status) in [
        ("INT", "migrate", "do:create-scan-user:recorded", 1),
        ("TERM", "migrate", "do:write-tmpfiles:recorded", 1),
        ("HUP", "migrate", "do:write-scan-unit:recorded", 1),
        ("TERM", "rollback", "undo:write-tmpfiles:recorded", 4),
    ] {
        if command == "rollback" {
            migrate(&machine)?;
        }
        // Every rename takes a second, so that the signal comes while the step is at work.
        let slow = "strace -f -o /dev/null -e trace=rename -e inject=rename:delay_enter=400ms";
        machine.background(
            "root",
            &format!("rm -f /run/instants /run/ended; NIX_UNROOT_CHECKPOINT_LOG=/run/instants {slow} {PROGRAM} {command} --yes >/run/said 2>&1; echo $? >/run/ended"),
        )?;
        machine.root(&format!(
            "for i in $(seq 1200); do grep -qx {instant} /run/instants && break; sleep 0.05; done; pkill -{signal} -x nix-unroot
             for i in $(seq 1200); do [ -s /run/ended ] && exit 0; sleep 0.1; done; cat /run/said; exit 1"
        ))?;
        let status_seen = machine.root("cat /run/ended")?.parse()?;
        let outcome = Outcome {
            command: format!("{command}, SIG{signal} at {instant}"),
            status: status_seen,
            stdout: String::new(),
            stderr: machine.root("cat /run/said")?,
        };
        ensure!(outcome.status == status && outcome.stderr.contains("stopped by a signal"), "{outcome}");
        let how = assert_recovers(&machine, &before, &outcome, command == "rollback", &outcome.command)?;
        println!("{}: exit status {status}, {how}", outcome.command);
    }
    Ok(())
}
