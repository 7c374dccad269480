//! What users see of the populated machine's Nix, asked through its daemon: of root's daemon before a migration and after a
//! rollback, and where it is the same, of the unprivileged one.

use crate::harness::machine::Machine;
use crate::harness::nixcmd::{self, Trust};
use anyhow::{Result, ensure};

/// How `harness/populate.rs` set the daemon up for its users.
const TRUST: [(&str, Trust); 5] = [
    ("root", Trust::Trusted),
    ("alice", Trust::Trusted),
    ("bob", Trust::Untrusted),
    ("carol", Trust::Untrusted),
    ("dave", Trust::Refused),
];

/// Who may connect.
pub fn served_users() -> impl Iterator<Item = &'static str> {
    TRUST.into_iter().filter(|(_, trust)| *trust != Trust::Refused).map(|(user, _)| user)
}

/// Fails unless everybody is trusted as the population configured it.
pub fn assert_trust(machine: &Machine) -> Result<()> {
    for (user, expected) in TRUST {
        let seen = nixcmd::trust(machine, user)?;
        ensure!(seen == expected, "{user} is {seen:?}, not {expected:?}");
    }
    Ok(())
}

/// Fails unless a build of `user` runs as a build user and its result belongs to root.
pub fn assert_root_owned_build(machine: &Machine, user: &str, name: &str) -> Result<()> {
    let ids = nixcmd::build_uid(machine, user, name)?;
    let account = machine.root(&format!("getent passwd {}", ids.outside))?;
    ensure!(account.starts_with("nixbld") && ids.owner == 0, "{user}'s build: {ids:?}, {account}");
    Ok(())
}
