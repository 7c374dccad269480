//! Debian's `nix-bin` and `nix-setup-systemd`.

use crate::harness::machine::Machine;
use anyhow::Result;

/// The packages are in the base tree; this checks that they came up.
pub fn install(machine: &Machine) -> Result<()> {
    machine.root(
        "systemctl is-active nix-daemon.socket; systemctl is-enabled nix-daemon.socket nix-daemon.service",
    )?;
    Ok(())
}
