//! `/nix` on a file system of its own, the journal on another: what one has, the other may have lost, or have no room for.

use super::interrupted::{killed_at, manifest};
use super::ready;
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::product;
use anyhow::{Result, ensure};

/// Moves `/nix` to a file system of `megabytes`.
fn separate(machine: &Machine, megabytes: u32) -> Result<()> {
    machine.root(&format!(
        "systemctl stop nix-daemon.socket nix-daemon.service; mkdir /run/old; mount --bind /nix /run/old; mount --make-private /run/old
         mount -t tmpfs -o size={megabytes}m,mode=0755 none /nix; cp -a /run/old/. /nix; umount /run/old
         systemctl start nix-daemon.socket"
    ))?;
    Ok(())
}

/// A power cut takes what was not synced. So both disks are synced between what a step does and the record that it is done.
#[test]
fn both_are_synced_before_a_step_counts_as_done() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "synced")?;
    separate(&machine, 200)?;
    let before = manifest(&machine)?;
    for (command, end, least) in [("migrate", "done", 40), ("rollback", "undone", 40)] {
        machine.root(&format!(
            "strace -y -s 200 -e trace=syncfs,write -o /run/calls {}/nix-unroot {command} --yes >/dev/null 2>&1",
            product::DIR
        ))?;
        let calls = machine.root("grep -E '^syncfs|run-1.record' /run/calls")?;
        let (mut synced, mut steps) = (Vec::new(), 0);
        for call in calls.lines() {
            if call.starts_with("syncfs") {
                ensure!(call.ends_with(" = 0"), "{call}");
                synced.push(call);
                continue;
            }
            // What others did, so that there was nothing to do, has to last as well.
            let is = |state: &str| call.contains(&format!(r#"\"state\":\"{state}\""#));
            if call.contains(r#"\"event\":\"step\""#) && (is(end) || is("skipped")) {
                let of = |place: &str| synced.iter().any(|call| call.contains(place));
                ensure!(of("</etc>") && of("</nix>"), "only {synced:?} came before {call}");
                steps += 1;
            }
            synced.clear();
        }
        ensure!(steps >= least, "only {steps} steps of {command} were recorded:\n{calls}");
    }
    before.assert_same(&manifest(&machine)?, "with two file systems, there and back")
}

/// The disk of `/nix` is full from some instant on: the run ends all the same, or is undone, and everything comes back.
#[test]
fn nix_fills_up() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "nix-full")?;
    separate(&machine, 40)?;
    let before = manifest(&machine)?;
    let mut ends = Vec::new();
    for instant in [
        "do:keep-stopped:done",
        "do:reown-store:recorded",
        "do:own-state-directory:done",
        "do:hand-over-database:recorded",
    ] {
        killed_at(&machine, instant, "migrate --yes")?;
        machine.root(
            "dd if=/dev/zero of=/nix/filler bs=4k 2>/dev/null || true; test $(stat -f -c %a /nix) = 0",
        )?;
        let outcome = product::run(&machine, "resume --yes")?;
        match outcome.status {
            0 => {
                product::ok(&machine, "rollback --yes")?;
            }
            1 => ensure!(outcome.stderr.contains("is undone"), "{instant}: {outcome}"),
            _ => anyhow::bail!("{instant}: {outcome}"),
        }
        ends.push(outcome.status);
        machine.root("rm /nix/filler")?;
        before.assert_same(&manifest(&machine)?, &format!("after /nix was full at {instant}"))?;
    }
    println!("exit status of the runs that met a full /nix: {ends:?}");
    Ok(())
}
