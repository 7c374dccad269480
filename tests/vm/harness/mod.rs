//! Everything between a scenario and a machine.

pub mod ansible;
pub mod cache;
pub mod cgroup;
pub mod exec;
pub mod image;
pub mod layout;
pub mod library;
pub mod lossy_disk;
pub mod machine;
pub mod manifest;
pub mod nbd;
pub mod nixcmd;
pub mod nspawn;
pub mod populate;
pub mod product;
pub mod qemu;
pub mod stock;
pub mod strace;

use anyhow::{Context, Result};
use layout::Layout;
use machine::Machine;
use populate::World;

/// A booted machine with a populated, root-owned Nix, and what is in it.
pub fn before(layout: Layout, test: &str) -> Result<(Machine, World)> {
    let (mut machine, world) = populated(layout, test)?;
    machine.boot().context("cannot boot the populated machine")?;
    Ok((machine, world))
}

/// The same, not booted yet.
pub fn populated(layout: Layout, test: &str) -> Result<(Machine, World)> {
    let populated = populate::tree(layout)?;
    let world = World::load(&populated.join("world.json"))?;
    let machine = Machine::copy_of(&populated.join("tree"), &format!("{test}-{}", layout.name()))?;
    Ok((machine, world))
}
