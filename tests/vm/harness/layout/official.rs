//! What the official multi-user installer leaves on a machine.

use super::archive;
use crate::harness::machine::Machine;
use anyhow::Result;

/// Unpacks the archive and runs its installer.
pub fn install(machine: &Machine) -> Result<()> {
    let archive = archive::cached()?;
    machine.install_file(&archive.file(), "/root/nix.tar", "0600")?;
    machine.root(
        "mkdir /root/unpacked; tar -C /root/unpacked -xf nix.tar; bash /root/unpacked/*/install; rm -rf /root/unpacked nix.tar",
    )?;
    Ok(())
}
