//! The root-owned Nix does what the scenarios will ask of the unprivileged one.

use crate::harness::layout;
use crate::harness::nixcmd;
use crate::harness::{before, populate};
use crate::scenarios::behaviour::{assert_root_owned_build, assert_trust, served_users};
use anyhow::{Context, Result, ensure};

#[test]
fn everybody_builds_and_is_trusted_as_configured() -> Result<()> {
    for layout in layout::ALL {
        let (machine, _) = before(layout, "builds")?;
        assert_trust(&machine).with_context(|| format!("{layout:?}"))?;
        for user in served_users() {
            assert_root_owned_build(&machine, user, &format!("{user}-uid"))?;
        }
    }
    Ok(())
}

#[test]
fn a_collection_deletes_exactly_the_garbage() -> Result<()> {
    for layout in layout::ALL {
        let (machine, world) = before(layout, "gc")?;
        world.hold(&machine)?;
        let before = nixcmd::valid_paths(&machine)?;
        let dead = nixcmd::dead_paths(&machine)?;
        for (what, path) in &world.garbage {
            ensure!(dead.contains(path), "{layout:?}: not garbage: {path}, {what}");
        }
        for (what, path) in &world.live {
            ensure!(!dead.contains(path), "{layout:?}: garbage: {path}, {what}");
        }
        nixcmd::collect_garbage(&machine)?;
        let expected: Vec<_> = before.difference(&dead).cloned().collect();
        let after: Vec<_> = nixcmd::valid_paths(&machine)?.into_iter().collect();
        ensure!(after == expected, "{layout:?}: left {after:#?}\nexpected {expected:#?}");
        ensure!(nixcmd::on_disk(&machine)?.is_subset(&before), "{layout:?}: unknown paths in the store");
        world.assert_live(&machine)?;
        world.assert_held(&machine)?;
    }
    Ok(())
}

#[test]
fn what_only_a_process_holds_is_garbage_without_it() -> Result<()> {
    let (machine, world) = before(layout::Layout::Debian, "unheld")?;
    let dead = nixcmd::dead_paths(&machine)?;
    for held in &world.held {
        ensure!(dead.contains(&held.path), "something else holds {}", held.path);
    }
    Ok(())
}

#[test]
fn the_population_has_what_makes_it_hard() -> Result<()> {
    for layout in layout::ALL {
        let (machine, _) = before(layout, "hard")?;
        for user in populate::USERS {
            machine.root(&format!("test $(stat -c %a:%U /home/{user}) = 700:{user}"))?;
        }
        machine.root(
            "for d in gcroots profiles; do test $(stat -c %U /nix/var/nix/$d/per-user/alice) = alice; done",
        )?;
        machine.root("test $(find /nix/store -type f -links +2 ! -path '*/.links/*' | wc -l) -ge 2")?;
        machine.root("test $(find /nix/var/nix/gcroots/auto -type l | wc -l) -ge 10")?;
    }
    Ok(())
}
