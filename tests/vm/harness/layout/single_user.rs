//! What the official script leaves for one person: a store of that person's, and no daemon. It is not one of the layouts that
//! every scenario goes through, because nobody but that person can use it.

use super::super::machine::Machine;
use anyhow::Result;

const INSTALL: &str = include_str!("../../fixtures/official/install-single");

/// Makes `/nix` for `user`, as the script asks root to, and runs the script's other steps as that user. `archive` is the path in
/// the machine.
pub fn install(machine: &Machine, user: &str, archive: &str) -> Result<()> {
    machine.write_file("/opt/single/install", "0755", INSTALL)?;
    machine
        .root(&format!("mkdir -m 0755 /nix; chown {user}:{user} /nix; tar -C /opt/single -xf {archive}"))?;
    machine.root(
        "grep -o '/nix/store/[^\"/]*-nix-[^\"/]*' /opt/single/nix-*/.reginfo | head -1 >/opt/single/nix",
    )?;
    machine.user(user, "bash /opt/single/install /opt/single/nix-* $(cat /opt/single/nix)")?;
    machine.root("rm -rf /opt/single")?;
    Ok(())
}
