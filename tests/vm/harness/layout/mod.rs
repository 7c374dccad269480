//! The ways in which root-owned Nix gets onto a machine.

pub mod archive;
mod debian;
mod official;
pub mod single_user;

use super::cache::Cached;
use super::machine::Machine;
use anyhow::Result;

/// A way in which root-owned Nix is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Debian's packages: Nix in `/usr`, units in `/usr/lib`, the socket for a group.
    Debian,
    /// The official multi-user installer: Nix in the store and in the default profile, units linked from there.
    Official,
}

/// All layouts, for tests that go through them.
pub const ALL: [Layout; 2] = [Layout::Debian, Layout::Official];

impl Layout {
    /// A short name for files and machines.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Debian => "debian",
            Layout::Official => "official",
        }
    }

    /// The tree that [`Layout::install`] starts from.
    pub fn base(self) -> Result<Cached> {
        match self {
            Layout::Debian => super::image::with_debian_nix(),
            Layout::Official => super::image::without_nix(),
        }
    }

    /// Installs Nix on a booted machine with this layout's base tree.
    pub fn install(self, machine: &Machine) -> Result<()> {
        match self {
            Layout::Debian => debian::install(machine),
            Layout::Official => official::install(machine),
        }
    }

    /// Groups that a user must be in to reach the daemon's socket.
    pub fn client_groups(self) -> &'static str {
        match self {
            Layout::Debian => "nix-users",
            Layout::Official => "",
        }
    }
}
