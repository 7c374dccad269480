//! What Nix's commands leave in homes.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Remains;
use crate::facts::{Facts, Machine};

/// A home with something of Nix in it.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Home {
    /// Whose it is.
    pub user: String,
    /// The names in it, relative to it.
    pub names: Vec<PathBuf>,
    /// The home.
    pub path: PathBuf,
}

/// What the installers themselves put into root's home.
const OF_INSTALLERS: [&str; 3] = [".nix-profile", ".nix-defexpr", ".nix-channels"];
/// What the commands make when somebody uses them. `.config/nix` is not among them: people write it.
const OF_COMMANDS: [&str; 5] =
    [".nix-profile", ".nix-defexpr", ".nix-channels", ".local/state/nix", ".cache/nix"];

/// Adds every home of a local account that has one of these.
pub(super) fn find(machine: &Machine, facts: &Facts, remains: &mut Remains) {
    for user in facts.users.iter().filter(|user| user.home.components().count() > 1) {
        let names: Vec<PathBuf> = OF_COMMANDS
            .iter()
            .map(PathBuf::from)
            .filter(|name| machine.lstat(&user.home.join(name)).is_ok())
            .collect();
        let seen = remains.homes.iter().any(|home| home.path == user.home);
        if !names.is_empty() && !seen {
            remains.homes.push(Home { user: user.name.clone(), names, path: user.home.clone() });
        }
    }
}

impl Home {
    /// Whether it is root's.
    pub fn is_roots(&self) -> bool {
        self.user == "root"
    }

    /// What of it an installer put there, and not a person.
    pub fn of_installers(&self) -> Vec<PathBuf> {
        let of_installer = |name: &&PathBuf| OF_INSTALLERS.iter().any(|known| name.as_os_str() == *known);
        self.names.iter().filter(of_installer).cloned().collect()
    }
}
