//! A garbage collection after the migration deletes what it would have deleted before, and nothing else.

use super::target::{Expected, assert_nothing_of_root};
use super::{migrate, ready};
use crate::harness::layout::Layout;
use crate::harness::nixcmd;
use anyhow::{Result, ensure};

on_both_layouts!(collect_deletes_exactly_the_garbage, users_collect_and_removed_roots_count);

fn collect_deletes_exactly_the_garbage(layout: Layout) -> Result<()> {
    let (machine, world) = ready(layout, "collect")?;
    world.hold(&machine)?;
    let expected = Expected::ask(&machine)?;
    migrate(&machine)?;
    expected.assert_collects(&machine, layout)?;
    world.assert_live(&machine)?;
    world.assert_held(&machine)?;
    assert_nothing_of_root(&machine)
}

/// Roots that users make and remove after the migration, in private homes, count for anybody's collection.
fn users_collect_and_removed_roots_count(layout: Layout) -> Result<()> {
    let (machine, world) = ready(layout, "roots")?;
    migrate(&machine)?;
    let new = machine.user("carol", &format!("{} -o ~/private/new", nixcmd::nix_build("carol-new", "")))?;
    let gone = machine.user("bob", "p=$(readlink result); rm result; echo $p")?;
    machine.user("bob", "nix-env --delete-generations old")?;
    machine.user("bob", "nix-store --gc")?;
    let valid = nixcmd::valid_paths(&machine)?;
    ensure!(valid.contains(&new), "carol's new result was deleted");
    ensure!(!valid.contains(&gone), "{gone} has no root any more and stayed");
    for (what, path) in world.live.iter().filter(|(what, path)| *path != gone && !what.contains("1 of bob's"))
    {
        ensure!(valid.contains(path), "deleted: {path}, {what}");
    }
    Ok(())
}
