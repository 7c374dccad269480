//! Builds after the migration.

use super::migrated;
use super::target::{assert_nothing_of_root, assert_unprivileged_build, subuids};
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::nixcmd::{self, nix_build};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;

on_both_layouts!(several_users_build_at_once, root_leaves_nothing_of_its_own, the_daemon_is_not_root);

fn several_users_build_at_once(layout: Layout) -> Result<()> {
    let (machine, _) = migrated(layout, "at-once")?;
    // Long enough that all of them run at the same time.
    let script = "while read line; do echo $line; done </proc/self/uid_map >$out/uid_map; $bb sleep 6";
    let build = |user: &str| nixcmd::build(&machine, user, &format!("{user}-at-once"), script);
    let paths = std::thread::scope(|scope| {
        let builds: Vec<_> = ["root", "alice", "bob", "carol"]
            .map(|user| scope.spawn(move || build(user)))
            .into_iter()
            .collect();
        builds
            .into_iter()
            .map(|build| build.join().expect("a build thread panicked"))
            .collect::<Result<Vec<_>>>()
    })?;
    let range = subuids(&machine)?;
    let mut uids = BTreeSet::new();
    for path in &paths {
        let map = machine.root(&format!("cat {path}/uid_map"))?;
        let uid: u32 = map.split_whitespace().nth(1).context("an empty uid_map")?.parse()?;
        ensure!(range.contains(&uid), "{path} was built as {uid}, outside of {range:?}");
        uids.insert(uid);
    }
    ensure!(uids.len() == paths.len(), "builds at the same time shared uids: {uids:?}");
    Ok(())
}

/// Every way in which root may write to the store goes through the daemon.
fn root_leaves_nothing_of_its_own(layout: Layout) -> Result<()> {
    let (machine, _) = migrated(layout, "by-root")?;
    for script in [
        format!("{} -o new-result", nix_build("root-new", "")),
        "echo text >text; nix-store --add text".to_owned(),
        format!("nix-instantiate {} --argstr name root-instance", nixcmd::WORLD_NIX),
        "nix-env -i $(readlink new-result)".to_owned(),
        "nix-store --optimise".to_owned(),
        "nix-store --gc".to_owned(),
        // sudo's own PATH does not have the official layout's Nix.
        format!("sudo $(dirname $(command -v nix-build))/{} --no-out-link", nix_build("root-sudo", "")),
    ] {
        machine.root(&script)?;
        assert_nothing_of_root(&machine)?;
        let store = machine.root("stat -c '%U:%G %a' /nix/store")?;
        ensure!(store == "root:nix 1775", "after `{script}` /nix/store is {store}");
    }
    assert_unprivileged_build(&machine, "bob", "bob-after-root")?;
    Ok(())
}

fn the_daemon_is_not_root(layout: Layout) -> Result<()> {
    let (machine, _) = migrated(layout, "daemon-uid")?;
    machine.background("bob", &format!("{} --no-out-link", nix_build("bob-slow", "$bb sleep 20")))?;
    wait_for(&machine, "pgrep -u nix -f 'nix-daemon.* --stdio'")?;
    let of_root = machine.try_root("pgrep -a -u root -x nix-daemon")?.stdout;
    ensure!(of_root.is_empty(), "a daemon runs as root: {of_root}");
    let capabilities = machine.root(
        "for p in $(pgrep -u nix -f 'nix-daemon.* --stdio'); do grep NoNewPrivs /proc/$p/status; done | sort -u",
    )?;
    ensure!(capabilities == "NoNewPrivs:\t1", "the daemon may gain privileges: {capabilities}");
    Ok(())
}

fn wait_for(machine: &Machine, script: &str) -> Result<()> {
    machine
        .root(&format!("for i in $(seq 100); do {script} >/dev/null && exit 0; sleep 0.1; done; exit 1"))?;
    Ok(())
}
