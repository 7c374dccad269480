//! One full pass with Debian's own kernel: what a container may hide shows here.

use super::hardening::{add_kvm, assert_hardened};
use super::namespace::{
    assert_no_profile, assert_refused_without_namespaces, lift_restrictions, migrate_restricted, restore_unit,
};
use super::target::{
    Expected, assert_migrated, assert_nothing_of_root, assert_root_owned_build, assert_trust,
    assert_unprivileged_build,
};
use crate::harness::layout::Layout;
use crate::harness::{populated, product};
use anyhow::Result;

#[test]
fn migrate_build_collect_reboot_and_roll_back() -> Result<()> {
    let (machine, world) = populated(Layout::Debian, "full-vm")?;
    product::install(&machine)?;
    let mut machine = machine.into_virtual_machine();
    machine.boot()?;
    let expected = Expected::ask(&machine)?;
    add_kvm(&machine)?;
    assert_refused_without_namespaces(&machine)?;
    migrate_restricted(&machine)?;
    expected.assert_collects(&machine, Layout::Debian)?;
    world.assert_live(&machine)?;
    assert_unprivileged_build(&machine, "bob", "bob-vm")?;
    machine.reboot()?;
    lift_restrictions(&machine)?;
    assert_migrated(&machine)?;
    assert_trust(&machine)?;
    assert_unprivileged_build(&machine, "alice", "alice-vm")?;
    assert_hardened(&machine)?;
    assert_nothing_of_root(&machine)?;
    product::ok(&machine, "verify")?;
    restore_unit(&machine)?;
    product::ok(&machine, "rollback --yes")?;
    assert_no_profile(&machine)?;
    assert_trust(&machine)?;
    world.assert_live(&machine)?;
    assert_root_owned_build(&machine, "bob", "bob-vm-after")
}
