//! One command, and the machine is in the target state with nothing lost.

use super::target::{assert_migrated, assert_nothing_of_root, assert_trust, assert_unprivileged_build};
use super::{migrate, migrated, ready};
use crate::harness::layout::Layout;
use crate::harness::manifest::Manifest;
use crate::harness::{nixcmd, product};
use anyhow::{Result, ensure};

on_both_layouts!(
    migrate_keeps_everything,
    migrate_again_does_nothing,
    a_migration_needs_a_yes,
    a_person_is_asked,
    everything_can_be_chosen,
);

fn migrate_keeps_everything(layout: Layout) -> Result<()> {
    let (machine, world) = ready(layout, "migrate")?;
    let paths = nixcmd::valid_paths(&machine)?;
    migrate(&machine)?;
    assert_trust(&machine)?;
    ensure!(nixcmd::valid_paths(&machine)? == paths, "the set of store paths changed");
    world.assert_live(&machine)?;
    machine.root("NIX_REMOTE=daemon nix-store --verify --check-contents")?;
    for user in ["root", "alice", "bob", "carol"] {
        assert_unprivileged_build(&machine, user, &format!("{user}-first"))?;
    }
    assert_nothing_of_root(&machine)?;
    product::ok(&machine, "verify")?;
    if layout == Layout::Official {
        // What an administrator set on the old daemon's unit is set on the new one's, too.
        let environment = machine.root("systemctl show -P Environment nix-daemon-gate.service")?;
        ensure!(environment.contains("no_proxy=localhost"), "the proxy settings are gone: {environment}");
    }
    let history = product::ok(&machine, "history")?;
    ensure!(history.contains("migrate"), "history: {history}");
    Ok(())
}

fn migrate_again_does_nothing(layout: Layout) -> Result<()> {
    let (machine, _) = migrated(layout, "again")?;
    let before = Manifest::take(&machine)?;
    let outcome = product::run(&machine, "migrate --yes")?.exits(0)?;
    ensure!((outcome.stdout.clone() + &outcome.stderr).contains("nothing to do"), "{outcome}");
    before.assert_same(&Manifest::take(&machine)?, "after a second migrate")
}

/// Without a terminal nothing prompts, and nothing happens.
fn a_migration_needs_a_yes(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "no-yes")?;
    nixcmd::trust(&machine, "alice")?;
    let before = Manifest::take(&machine)?;
    let outcome = product::run(&machine, "migrate")?.exits(2)?;
    ensure!(outcome.stderr.contains("--yes"), "{outcome}");
    before.assert_same(&Manifest::take(&machine)?, "after a migrate that was not confirmed")
}

/// On a terminal the plan is shown in short, a question is asked, and progress is drawn.
fn a_person_is_asked(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "asked")?;
    nixcmd::trust(&machine, "alice")?;
    let before = Manifest::take(&machine)?;
    let answered = |key: &str| {
        // script(1) gives the program a terminal; the key is typed when the question has been there for a while.
        let program = format!("{}/nix-unroot migrate", product::DIR);
        machine.try_root(&format!(
            "(sleep 5; printf {key}; sleep 1) | TERM=xterm script -qec '{program}' /dev/null"
        ))
    };
    let declined = answered("n")?.exits(1)?;
    ensure!(declined.stdout.contains("Migrate this machine?"), "{declined}");
    before.assert_same(&Manifest::take(&machine)?, "after a no")?;
    let accepted = answered("y")?.exits(0)?;
    for part in ["hand Nix to", "Migrate this machine?", "reown-store", "done: Nix runs unprivileged"] {
        ensure!(accepted.stdout.contains(part), "{part:?} is missing: {accepted}");
    }
    assert_migrated(&machine)
}

/// Names, ids and the range can be chosen, from the file that fleets distribute.
fn everything_can_be_chosen(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "chosen")?;
    nixcmd::trust(&machine, "alice")?;
    machine.write_file(
        "/etc/nix-unroot.toml",
        "0644",
        "yes = true\nnix-user = \"store\"\nnix-uid = 4321\nsubid-start = 1000013824\nsubid-count = 131072\n",
    )?;
    product::ok(&machine, "migrate")?;
    let seen = machine
        .root("id -u store; stat -c %U /nix/var/nix/db/db.sqlite; grep ^store: /etc/subuid /etc/subgid")?;
    ensure!(
        seen == "4321\nstore\n/etc/subuid:store:1000013824:131072\n/etc/subgid:store:1000013824:131072",
        "{seen}"
    );
    let ids = nixcmd::build_uid(&machine, "bob", "bob-chosen")?;
    ensure!((1_000_013_824..1_000_013_824 + 131_072).contains(&ids.outside), "{ids:?}");
    product::ok(&machine, "verify")?;
    product::ok(&machine, "rollback")?;
    machine
        .root("not getent passwd store; not getent group store; not grep store /etc/subuid /etc/subgid")?;
    let left = machine.root("find / -xdev \\( -uid 4321 -o -nouser \\) -not -path '/proc/*' | head")?;
    ensure!(left.is_empty(), "left behind: {left}");
    Ok(())
}
