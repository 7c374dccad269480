//! A reboot runs systemd-tmpfiles and starts every unit anew; the migration must hold.

use super::target::{
    Expected, assert_migrated, assert_nothing_of_root, assert_trust, assert_unprivileged_build,
};
use super::{migrate, ready};
use crate::harness::layout::Layout;
use crate::harness::product;
use anyhow::Result;

on_both_layouts!(all_holds_after_a_reboot);

fn all_holds_after_a_reboot(layout: Layout) -> Result<()> {
    let (mut machine, world) = ready(layout, "reboot")?;
    let expected = Expected::ask(&machine)?;
    migrate(&machine)?;
    machine.reboot()?;
    assert_migrated(&machine)?;
    assert_trust(&machine)?;
    expected.assert_collects(&machine, layout)?;
    world.assert_live(&machine)?;
    for user in ["root", "bob"] {
        assert_unprivileged_build(&machine, user, &format!("{user}-after-reboot"))?;
    }
    product::ok(&machine, "verify")?;
    assert_nothing_of_root(&machine)
}
