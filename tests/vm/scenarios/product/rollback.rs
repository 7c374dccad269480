//! The way back is exact.

use super::interrupted::manifest;
use super::target::{Expected, assert_root_owned_build, assert_trust, assert_unprivileged_build};
use super::{migrate, migrated, ready};
use crate::harness::layout::Layout;
use crate::harness::manifest::Manifest;
use crate::harness::{nixcmd, product};
use anyhow::{Result, ensure};

on_both_layouts!(
    rollback_leaves_the_same_machine,
    rollback_keeps_what_was_built_since,
    rollback_after_a_reboot,
    there_and_back_and_there,
);

fn rollback_leaves_the_same_machine(layout: Layout) -> Result<()> {
    let (mut machine, world) = ready(layout, "rollback")?;
    let expected = Expected::ask(&machine)?;
    let before = manifest(&machine)?;
    migrate(&machine)?;
    product::ok(&machine, "rollback --yes")?;
    // Nobody connects before this is taken: what ran before must run again.
    before.assert_same(&Manifest::take(&machine)?, "after a rollback")?;
    machine.reboot()?;
    before.assert_same(&manifest(&machine)?, "after a rollback and a reboot")?;
    assert_trust(&machine)?;
    expected.assert_collects(&machine, layout)?;
    world.assert_live(&machine)?;
    assert_root_owned_build(&machine, "bob", "bob-after-rollback")
}

fn rollback_keeps_what_was_built_since(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "rollback-new")?;
    migrate(&machine)?;
    let (uid, gid) = (machine.root("id -u nix")?, machine.root("id -g nix")?);
    let rooted = machine.user("bob", &format!("{} -o ~/since", nixcmd::nix_build("bob-since", "")))?;
    product::ok(&machine, "rollback --yes")?;
    let owner = machine.root(&format!("stat -c %U:%G {rooted}"))?;
    ensure!(owner == "root:root", "what was built since belongs to {owner}");
    let left =
        machine.root(&format!("find / -xdev \\( -uid {uid} -o -gid {gid} -o -uid +99999 \\) | head"))?;
    ensure!(left.is_empty(), "left behind with the ids of the migration:\n{left}");
    nixcmd::collect_garbage(&machine)?;
    ensure!(nixcmd::valid_paths(&machine)?.contains(&rooted), "what was built since was collected");
    machine.root("nix-store --verify --check-contents")?;
    Ok(())
}

fn rollback_after_a_reboot(layout: Layout) -> Result<()> {
    let (mut machine, _) = ready(layout, "rollback-late")?;
    let before = manifest(&machine)?;
    migrate(&machine)?;
    machine.reboot()?;
    product::ok(&machine, "rollback --yes")?;
    before.assert_same(&manifest(&machine)?, "after a reboot and a rollback")
}

fn there_and_back_and_there(layout: Layout) -> Result<()> {
    let (machine, world) = ready(layout, "again")?;
    let expected = Expected::ask(&machine)?;
    let before = manifest(&machine)?;
    migrate(&machine)?;
    product::ok(&machine, "rollback --yes")?;
    migrate(&machine)?;
    assert_trust(&machine)?;
    product::ok(&machine, "rollback --yes")?;
    before.assert_same(&manifest(&machine)?, "after two migrations and two rollbacks")?;
    migrate(&machine)?;
    assert_unprivileged_build(&machine, "alice", "alice-third")?;
    // The build above is garbage as well, and goes with the rest.
    expected.assert_collects(&machine, layout)?;
    world.assert_live(&machine)
}

/// Neither a database that is no database any more, nor units that somebody removed.
#[test]
fn what_is_broken_is_no_obstacle() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "rollback-broken")?;
    machine.root(
        "systemctl stop nix-daemon.socket 'nix-daemon-gate*'
         cd /nix/var/nix/db; head -c 60000 /dev/urandom | dd of=db.sqlite bs=1 seek=5000 conv=notrunc 2>/dev/null; rm -f db.sqlite-*
         rm /usr/lib/systemd/system/nix-daemon.so* /usr/lib/systemd/system/nix-daemon.se*; systemctl daemon-reload",
    )?;
    let done = product::run(&machine, "rollback --yes")?.exits(0)?;
    for note in ["the copy from before the migration is", "not there any more"] {
        ensure!(done.stderr.contains(note), "{note:?} is missing: {done}");
    }
    let kept = machine
        .root("stat -c %U /nix/var/nix/db/db.sqlite; ls /var/lib/nix-unroot/backups/run-1/db.sqlite")?;
    ensure!(kept.starts_with("root\n"), "{kept}");
    Ok(())
}
