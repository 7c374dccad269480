//! What an installer of Nix left on this machine, whoever it was and however far it came.
//!
//! Judged by what lies on the disk, not by a receipt: receipts are missing after an interruption, and name what an
//! installer only found (`docs/known-failures.md`). The marks are those of the installers' own sources: the official script's
//! `install-multi-user.sh`, `NixOS/nix-installer`, and Debian's maintainer scripts.

mod accounts;
mod files;
mod holders;
mod homes;
mod mac;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use holders::{Holder, holders};
pub use homes::Home;
pub use mac::{OfMac, open_below, users_of_the_volume};

use crate::facts::{Facts, Flavour, Machine};
use crate::types::UnitName;

/// What would have to go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remains {
    /// Units of Nix that systemd knows.
    pub units: Vec<UnitName>,
    /// Files and links.
    pub files: Vec<PathBuf>,
    /// Files of others with a block of an installer's.
    pub blocks: Vec<PathBuf>,
    /// Directories that go when they are empty then, the innermost first.
    pub directories: Vec<PathBuf>,
    /// Build users, and the users of an unprivileged Nix.
    pub users: Vec<String>,
    /// Groups.
    pub groups: Vec<String>,
    /// Uids of those users.
    pub build_uids: Vec<u32>,
    /// Whose packages provide Nix: `debian`, `fedora`, `arch`.
    pub distribution: Option<String>,
    /// Packages of the distribution.
    pub packages: Vec<String>,
    /// Homes with something of Nix in them, root's among them.
    pub homes: Vec<Home>,
    /// Whether `/nix` is there.
    pub store: bool,
    /// What only a Mac has.
    pub mac: Option<OfMac>,
    /// What looks like Nix's and is left alone, and why.
    pub stays: Vec<String>,
}

impl Remains {
    /// What is on `machine`, of which `facts` were gathered.
    pub fn find(machine: &Machine, facts: &Facts) -> Self {
        let mut remains = Self::default();
        if let Flavour::Packages { distribution, packages } = &facts.flavour {
            remains.distribution = Some(distribution.clone());
            remains.packages =
                packages.iter().filter_map(|package| package.split(' ').next()).map(str::to_owned).collect();
        }
        remains.units = facts.units.iter().map(|unit| unit.name.clone()).filter(is_nixs).collect();
        files::find(machine, &mut remains);
        accounts::find(facts, &mut remains);
        homes::find(machine, facts, &mut remains);
        remains.store = machine.lstat("/nix".as_ref()).is_ok();
        if let Some(mac) = &facts.mac {
            mac::find(facts, mac, &mut remains);
        }
        remains
    }

    /// Whether nothing of Nix is here. Homes alone do not count: they are people's own.
    pub fn is_empty(&self) -> bool {
        let Self { units, files, blocks, users, groups, packages, store, mac, .. } = self;
        units.is_empty()
            && files.is_empty()
            && blocks.is_empty()
            && users.is_empty()
            && groups.is_empty()
            && packages.is_empty()
            && !store
            && mac.as_ref().is_none_or(OfMac::is_empty)
    }
}

/// Whether a unit is the daemon's, by the names that installers and packages give it; other units may mention Nix, too.
fn is_nixs(unit: &UnitName) -> bool {
    let stem = unit.as_str().split(['@', '.']).next().unwrap_or_default();
    ["nix-daemon", "nix-daemon-gate", "nix-root-scan", "determinate-nixd"].contains(&stem)
}
