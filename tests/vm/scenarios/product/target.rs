//! What a migrated machine must look like (DESIGN section 3), asked of the machine and not of the tool.

use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::nixcmd;
use anyhow::{Context, Result, ensure};
use std::ops::Range;

pub use crate::scenarios::behaviour::{assert_root_owned_build, assert_trust};

/// Fails unless ownership, units and accounts are those of a migrated machine.
pub fn assert_migrated(machine: &Machine) -> Result<()> {
    for (path, expected) in [
        ("/nix", "root:root 755"),
        ("/nix/store", "root:nix 1775"),
        ("/nix/var/nix", "root:nix 1775"),
        ("/nix/var/nix/db", "nix:nix 755"),
        ("/nix/var/nix/db/db.sqlite", "nix:nix 644"),
        ("/nix/var/nix/gcroots/auto", "nix:nix 755"),
    ] {
        let seen = machine.root(&format!("stat -c '%U:%G %a' {path}"))?;
        ensure!(seen == expected, "{path} is {seen}, should be {expected}");
    }
    for path in ["/nix/var/nix/daemon-socket", "/nix/var/nix/gc-roots-socket"] {
        let owner = machine.root(&format!("stat -c %U {path}"))?;
        ensure!(owner == "root", "{path} belongs to {owner}: it could be swapped for a link");
    }
    machine.root(
        "for d in gcroots profiles; do test $(stat -c %U /nix/var/nix/$d/per-user/alice) = alice; done",
    )?;
    assert_nothing_of_root(machine)?;
    let units = machine.root(
        "systemctl is-active nix-daemon.socket nix-root-scan.socket; systemctl show -P LoadState nix-daemon.service",
    )?;
    ensure!(units == "active\nactive\nmasked", "units: {units}");
    let failed = machine.root("systemctl --failed --no-legend --plain")?;
    ensure!(!failed.contains("nix"), "failed units: {failed}");
    Ok(())
}

/// Fails when anything below `/nix/store`, or of the database, belongs to root.
pub fn assert_nothing_of_root(machine: &Machine) -> Result<()> {
    let found = machine.root("find /nix/store /nix/var/nix/db -mindepth 1 -user root | head -20")?;
    ensure!(found.is_empty(), "these belong to root:\n{found}");
    Ok(())
}

/// Fails unless a build of `user` runs with a uid of the range and its result belongs to `nix`; the uid.
pub fn assert_unprivileged_build(machine: &Machine, user: &str, name: &str) -> Result<u32> {
    let ids = nixcmd::build_uid(machine, user, name)?;
    let range = subuids(machine)?;
    ensure!(range.contains(&ids.outside), "{user}'s build ran as {}, outside of {range:?}", ids.outside);
    let nix: u32 = machine.root("id -u nix")?.parse()?;
    ensure!(ids.owner == nix, "{} belongs to {}, not to nix ({nix})", ids.path, ids.owner);
    Ok(ids.outside)
}

/// The uids that `/etc/subuid` gives to `nix`.
pub fn subuids(machine: &Machine) -> Result<Range<u32>> {
    let line = machine.root("grep ^nix: /etc/subuid")?;
    let mut numbers = line.split(':').skip(1).map(str::parse::<u32>);
    let (start, count) = (numbers.next(), numbers.next());
    let (start, count) = (start.context("no start")??, count.context("no count")??);
    Ok(start..start + count)
}

/// What a collection would delete, and what it would leave, asked of the root-owned Nix.
#[derive(Debug)]
pub struct Expected {
    left: Vec<String>,
}

impl Expected {
    /// Asks the machine before it is migrated.
    pub fn ask(machine: &Machine) -> Result<Expected> {
        let dead = nixcmd::dead_paths(machine)?;
        ensure!(!dead.is_empty(), "no garbage on the machine");
        let valid = nixcmd::valid_paths(machine)?;
        Ok(Expected { left: valid.difference(&dead).cloned().collect() })
    }

    /// Collects garbage and fails unless it leaves exactly what the root-owned Nix would have left.
    pub fn assert_collects(&self, machine: &Machine, layout: Layout) -> Result<()> {
        let said = nixcmd::collect_garbage(machine)?;
        let left: Vec<_> = nixcmd::valid_paths(machine)?.into_iter().collect();
        let lost: Vec<_> = self.left.iter().filter(|path| !left.contains(path)).collect();
        let kept: Vec<_> = left.iter().filter(|path| !self.left.contains(path)).collect();
        ensure!(lost.is_empty(), "{layout:?}: the collection DELETED LIVE PATHS {lost:#?}\nit said:\n{said}");
        ensure!(kept.is_empty(), "{layout:?}: the collection left garbage {kept:#?}\nit said:\n{said}");
        let on_disk: Vec<_> = nixcmd::on_disk(machine)?.into_iter().collect();
        ensure!(
            on_disk == left,
            "{layout:?}: in the store but not valid, or the other way round:\n{on_disk:#?}\n{left:#?}"
        );
        Ok(())
    }
}
