//! Runs that die, fail, or meet each other.

use super::target::assert_migrated;
use super::{migrate, ready};
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::manifest::Manifest;
use crate::harness::{nixcmd, product};
use anyhow::{Result, ensure};

on_both_layouts!(
    a_killed_migration_is_rolled_back_exactly,
    a_killed_migration_is_resumed,
    a_killed_rollback_is_finished,
    a_restart_in_the_middle_starts_nothing,
    a_failing_check_undoes_the_run,
    a_check_that_dies_leaves_nothing,
    nobody_works_on_the_store_meanwhile,
    what_forbids_a_run_is_said_before_it,
    without_root_nothing_happens,
);

/// What a shell says of a process that SIGKILL ended.
pub const KILLED: i32 = 128 + 9;

/// Runs `nix-unroot` so that it kills itself at a checkpoint (see `src/system/checkpoint.rs`).
pub fn killed_at(machine: &Machine, checkpoint: &str, arguments: &str) -> Result<()> {
    let program = format!("{}/nix-unroot", product::DIR);
    machine.try_root(&format!("NIX_UNROOT_CHECKPOINT={checkpoint} {program} {arguments}"))?.exits(KILLED)?;
    Ok(())
}

/// The manifest with the daemon running, which a first client starts.
pub fn manifest(machine: &Machine) -> Result<Manifest> {
    nixcmd::trust(machine, "alice")?;
    Manifest::take(machine)
}

/// The manifest of a migrated machine, but for what the scanner remembers: that holds times.
pub fn migrated_manifest(machine: &Machine) -> Result<Manifest> {
    Ok(manifest(machine)?.without("/var/lib/nix-root-scan/remembered", "sha256"))
}

fn a_killed_migration_is_rolled_back_exactly(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "killed-back")?;
    let before = manifest(&machine)?;
    for checkpoint in [
        "run:begun",
        "do:create-nix-user:applied",
        "do:stop-root-daemon:recorded",
        "do:reown-store:applied",
        "do:write-daemon-unit:recorded",
        "do:start-daemon:done",
    ] {
        killed_at(&machine, checkpoint, "migrate --yes")?;
        let refused = product::run(&machine, "migrate --yes")?.exits(3)?;
        ensure!((refused.stdout.clone() + &refused.stderr).contains("rollback"), "{checkpoint}: {refused}");
        let history = product::ok(&machine, "history")?;
        ensure!(history.contains("applying"), "{checkpoint}: {history}");
        product::ok(&machine, "rollback --yes")?;
        before.assert_same(&manifest(&machine)?, &format!("after a kill at {checkpoint} and a rollback"))?;
    }
    Ok(())
}

fn a_killed_migration_is_resumed(layout: Layout) -> Result<()> {
    let (mut machine, world) = ready(layout, "killed-on")?;
    let before = manifest(&machine)?;
    // An account tool that dies between two files leaves half a group, or half a user.
    killed_at(&machine, "do:create-scan-group:recorded", "migrate --yes")?;
    machine.root("echo nix-root-scan:x:970: >>/etc/group")?;
    killed_at(&machine, "do:create-scan-user:recorded", "resume --yes")?;
    machine.root(
        "echo nix-root-scan:x:970:$(getent group nix-root-scan | cut -d: -f3)::/nonexistent:/bin/sh >>/etc/passwd",
    )?;
    killed_at(&machine, "do:reown-state:applied", "resume --yes")?;
    machine.reboot()?;
    killed_at(&machine, "do:write-daemon-socket:applied", "resume --yes")?;
    product::ok(&machine, "resume --yes")?;
    assert_migrated(&machine)?;
    product::ok(&machine, "verify")?;
    world.assert_live(&machine)?;
    let outcome = product::run(&machine, "resume --yes")?.exits(0)?;
    ensure!(outcome.stderr.contains("nothing to do"), "{outcome}");
    product::ok(&machine, "rollback --yes")?;
    before.assert_same(&manifest(&machine)?, "after a resumed migration and a rollback")
}

fn a_killed_rollback_is_finished(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "killed-rollback")?;
    let before = manifest(&machine)?;
    migrate(&machine)?;
    killed_at(&machine, "undo:start-daemon:applied", "rollback --yes")?;
    killed_at(&machine, "undo:reown-store:recorded", "resume --yes")?;
    killed_at(&machine, "undo:create-nix-user:applied", "rollback --yes")?;
    product::ok(&machine, "rollback --yes")?;
    before.assert_same(&manifest(&machine)?, "after a rollback that was killed three times")
}

/// A machine that restarts in the middle of a run has neither the old daemon nor a half-made new one, in both directions.
fn a_restart_in_the_middle_starts_nothing(layout: Layout) -> Result<()> {
    let (mut machine, _) = ready(layout, "restarted")?;
    let before = manifest(&machine)?;
    let quiet = |machine: &Machine, when: &str| -> Result<()> {
        let outcome = machine.try_user("alice", "nix-store --add /etc/hostname")?;
        ensure!(outcome.status != 0, "{when}: a daemon answered: {outcome}");
        let daemons = machine.root("pgrep -l nix-daemon || true")?;
        ensure!(daemons.is_empty(), "{when}: {daemons}");
        Ok(())
    };
    killed_at(&machine, "do:own-state-directory:done", "migrate --yes")?;
    machine.reboot()?;
    quiet(&machine, "halfway there")?;
    product::ok(&machine, "rollback --yes")?;
    before.assert_same(&manifest(&machine)?, "after a restart halfway and a rollback")?;

    // Before and after things change hands, a boot gives nothing to anybody, whatever tmpfiles.d says else.
    killed_at(&machine, "do:keep-stopped:done", "migrate --yes")?;
    machine.reboot()?;
    product::ok(&machine, "resume --yes")?;
    killed_at(&machine, "undo:make-scan-socket-directory:done", "rollback --yes")?;
    machine.reboot()?;
    product::ok(&machine, "rollback --yes")?;
    before.assert_same(&manifest(&machine)?, "after restarts before and after the change of owners")?;

    // Here the new sockets are enabled, and run after the restart, with a client on them.
    killed_at(&machine, "do:enable-scan-socket:done", "migrate --yes")?;
    machine.reboot()?;
    machine.background("alice", &format!("{} --no-out-link", nixcmd::nix_build("held", "sleep 30")))?;
    machine.root("for i in $(seq 100); do pgrep -x nix-daemon && exit 0; sleep 0.1; done; exit 1")?;
    product::ok(&machine, "rollback --yes")?;
    let units =
        machine.root("systemctl list-units --all --plain --no-legend 'nix-root-scan*' 'nix-daemon-gate*'")?;
    ensure!(units.is_empty(), "still there after the rollback: {units}");
    let owner =
        machine.root("stat -c '%U:%G' /nix/var/nix/db/db.sqlite; find /nix/store -nouser | head -3")?;
    ensure!(owner == "root:root", "after the rollback: {owner}");

    migrate(&machine)?;
    killed_at(&machine, "undo:reown-state:applied", "rollback --yes")?;
    machine.reboot()?;
    quiet(&machine, "halfway back")?;
    product::ok(&machine, "resume --yes")?;
    super::target::assert_root_owned_build(&machine, "bob", "bob-after")?;
    Ok(())
}

/// Root's own commands open the database themselves: they are waited for, and a migration that waited long enough leaves
/// everything as it was.
fn nobody_works_on_the_store_meanwhile(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "busy")?;
    let before = manifest(&machine)?;
    machine.background(
        "root",
        "mkfifo /tmp/in; sleep 1000000 >/tmp/in & NIX_REMOTE=local nix-store --serve --write </tmp/in",
    )?;
    machine.root(
        "for i in $(seq 100); do ls -l /proc/*/fd 2>/dev/null | grep -q /nix/var/nix/db/ && exit 0; sleep 0.1; done; exit 1",
    )?;
    let outcome = product::run(&machine, "migrate --yes --drain-timeout 2")?.exits(1)?;
    ensure!(
        outcome.stderr.contains("database open") && outcome.stderr.contains("nix-store --serve"),
        "{outcome}"
    );
    machine.root("pkill -f '[s]leep 1000000'; sleep 1; rm /tmp/in")?;
    before.assert_same(&manifest(&machine)?, "after a migration that waited in vain")
}

/// A private /tmp makes GC roots below it look absent to the daemon, which only a real try can tell.
fn a_failing_check_undoes_the_run(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "failing")?;
    machine.root(
        "mkdir -p /etc/systemd/system/nix-daemon-gate.service.d
         printf '[Service]\\nPrivateTmp=yes\\n' >/etc/systemd/system/nix-daemon-gate.service.d/private.conf
         systemctl daemon-reload",
    )?;
    let before = manifest(&machine)?;
    let outcome = product::run(&machine, "migrate --yes")?.exits(1)?;
    ensure!(outcome.stderr.contains("daemon-view") && outcome.stderr.contains("undone"), "{outcome}");
    before.assert_same(&manifest(&machine)?, "after a migration whose check failed")?;
    let outcome = product::run(&machine, "migrate --yes --keep-partial")?.exits(4)?;
    ensure!(outcome.stderr.contains("rollback"), "{outcome}");
    product::ok(&machine, "rollback --yes")?;
    before.assert_same(&manifest(&machine)?, "after a migration that was left half done, and a rollback")
}

/// Where the scanner remembers roots by their file system, a disk that has another name at the next boot must not keep alive what a
/// killed check planted. Here a mount over the directories takes the boot's place.
fn a_check_that_dies_leaves_nothing(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "killed-check")?;
    killed_at(&machine, "do:verify:recorded", "migrate --yes")?;
    let remains = "ls -d /nix/store/*-nix-unroot-verify-* /{home,root,var/tmp}/.nix-unroot-verify-* 2>/dev/null || true";
    let before = machine.root("ls /nix/var/nix/gcroots/auto")?;
    let mut left = 0;
    for (number, kind) in [
        (1, "path-added"),
        (1, "built"),
        (1, "paths-deleted"),
        (2, "plant-made"),
        (3, "path-added"),
        (3, "root-planted"),
        (1, "roots-listed"),
        (2, "plant-removed"),
        (2, "paths-deleted"),
    ] {
        killed_at(&machine, &format!("do:verify:{number}:{kind}"), "resume --yes")?;
        left += machine.root(remains)?.lines().count();
        if kind == "roots-listed" {
            // The scanner has seen them.
            machine.root("for d in /home /root /var/tmp; do mount --bind $d $d; done")?;
        }
    }
    ensure!(left > 10, "only {left} things were left by the kills");
    let begun = std::time::Instant::now();
    product::ok(&machine, "resume --yes")?;
    let took = begun.elapsed();
    ensure!(took.as_secs() < 15, "the last check took {took:?}");
    let nothing_left = || {
        let after = machine.root(&format!("ls /nix/var/nix/gcroots/auto; {remains}"))?;
        ensure!(after == before, "before:\n{before}\nafter:\n{after}");
        anyhow::Ok(())
    };
    nothing_left()?;

    // The command cleans up after itself, too, and disturbs no run.
    let left = machine.root(&format!(
        "{0}/nix-unroot verify >/dev/null 2>&1 & until ls /root/.nix-unroot-verify-* 2>/dev/null; do :; done
         kill -9 $!; flock -w 60 /var/lib/nix-unroot/lock true; {remains}",
        product::DIR
    ))?;
    ensure!(!left.is_empty(), "the killed check left nothing");
    let beside = format!("flock /var/lib/nix-unroot/lock {}/nix-unroot verify", product::DIR);
    let held = machine.try_root(&beside)?.exits(3)?;
    ensure!(held.stderr.contains("another nix-unroot run"), "{held}");
    product::ok(&machine, "verify")?;
    nothing_left()
}

fn what_forbids_a_run_is_said_before_it(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "forbidden")?;
    let before = manifest(&machine)?;
    // Each: what is done to the machine, the exit status of a migration, what it says, what undoes that again.
    for (script, status, message, undo) in [
        (
            "mkdir -p /var/lib/nix-unroot; setsid flock /var/lib/nix-unroot/lock sleep 60 </dev/null >/dev/null 2>&1 & sleep 0.5",
            3,
            "another run",
            "pkill -f '[s]leep 60'; rm -rf /var/lib/nix-unroot",
        ),
        (
            "mkdir -p /var/lib/nix-unroot; mount -t tmpfs -o size=1m none /var/lib/nix-unroot",
            3,
            "disk-full",
            "umount /var/lib/nix-unroot; rmdir /var/lib/nix-unroot",
        ),
        ("echo 'nix-usr = \"x\"' >/etc/nix-unroot.toml", 2, "nix-usr", "rm /etc/nix-unroot.toml"),
        ("echo 'nix-user = \"root\"' >/etc/nix-unroot.toml", 2, "root", "rm /etc/nix-unroot.toml"),
    ] {
        machine.root(script)?;
        let outcome = product::run(&machine, "migrate --yes")?.exits(status)?;
        ensure!((outcome.stdout.clone() + &outcome.stderr).contains(message), "{script}: {outcome}");
        machine.root(undo)?;
        before.assert_same(&manifest(&machine)?, &format!("after {script}"))?;
    }
    machine.root("mount --bind /nix/store /nix/store; mount -o remount,bind,ro /nix/store")?;
    let outcome = product::run(&machine, "migrate --yes")?.exits(3)?;
    // systemd remembers the mount for a while, so this machine is not compared after it.
    machine.root("umount /nix/store; test $(stat -c %U:%G /nix/store) = root:nixbld; ! getent passwd nix")?;
    ensure!(outcome.stdout.contains("store-read-only"), "{outcome}");
    Ok(())
}

/// What needs root says so, and changes nothing.
fn without_root_nothing_happens(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "no-root")?;
    let before = manifest(&machine)?;
    machine.root(&format!("mkdir /opt/nu; cp {}/nix-* /opt/nu", product::DIR))?;
    let outcome = machine.try_user("alice", "/opt/nu/nix-unroot migrate --yes")?.exits(2)?;
    ensure!(outcome.stderr.contains("needs root"), "{outcome}");
    machine.root("rm -r /opt/nu")?;
    before.assert_same(&manifest(&machine)?, "after a migrate without root")
}
