//! What only a Mac has: the volume that Nix lies on, launchd's jobs, and what makes `/nix` exist at all.
//!
//! Nothing of this was run on a Mac. The commands are those of Apple's manual pages (dscl(1), diskutil(8), launchctl(1),
//! security(1)), and the tests hold their output as others published it.

pub(crate) mod accounts;
mod fstab;
mod jobs;
pub(crate) mod processes;
mod shell;
#[cfg(test)]
mod tests;
mod volume;

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use fstab::{FstabLine, SyntheticLine};
pub use jobs::{DIRECTORY as JOBS, Job, MARK};
pub use shell::ShellFile;
pub use volume::{KEYCHAIN, NAME as VOLUME, SystemDisk, Volume};

use super::reader::Reader;
use crate::platform::paths::MAC_VERSION as SYSTEM_VERSION;

/// The daemon's job of the official installer, NixOS's and nix-darwin; ours keeps the name, so that what restarts it still does.
pub const DAEMON: &str = "org.nixos.nix-daemon";
/// The job that mounts the volume.
pub const MOUNTER: &str = "org.nixos.darwin-store";
/// Determinate Nix's daemon.
pub const DETERMINATE_DAEMON: &str = "systems.determinate.nix-daemon";
/// Determinate Nix's job that mounts the volume.
pub const DETERMINATE_MOUNTER: &str = "systems.determinate.nix-store";
/// The job of NixOS's and Determinate's installers that repairs shell files, as root, with a program below `/nix`.
pub const HOOK: &str = "systems.determinate.nix-installer.nix-hook";

/// What only a Mac has.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Mac {
    /// The volume mounted at `/nix`, as `diskutil info -plist /nix` tells.
    pub volume: Option<Volume>,
    /// A volume named as installers name it in the system's container, not mounted, where none is mounted at `/nix`.
    pub unmounted: Option<Volume>,
    /// A volume of that name on another disk, or mounted elsewhere: it is not this Mac's Nix.
    #[serde(default)]
    pub elsewhere: Option<Volume>,
    /// The disk that the system lies on, as `diskutil info -plist /` tells.
    pub disk: Option<SystemDisk>,
    /// Lines of `/etc/synthetic.conf` (synthetic.conf(5)) about `nix`.
    pub synthetic: Option<SyntheticLine>,
    /// The line of `/etc/fstab` (fstab(5)) that mounts at `/nix`.
    pub fstab: Option<FstabLine>,
    /// Jobs of `/Library/LaunchDaemons` that have to do with Nix, in the order of their labels.
    pub jobs: Vec<Job>,
    /// Files of shells in `/etc`, with what installers left there.
    pub shell_files: Vec<ShellFile>,
}

impl Mac {
    /// The job of that label.
    pub fn job(&self, label: &str) -> Option<&Job> {
        self.jobs.iter().find(|job| job.label == label)
    }

    /// The job that runs Nix's daemon.
    pub fn daemon(&self) -> Option<&Job> {
        self.job(DAEMON).or_else(|| self.job(DETERMINATE_DAEMON))
    }

    /// The job that mounts the volume.
    pub fn mounter(&self) -> Option<&Job> {
        self.job(MOUNTER).or_else(|| self.job(DETERMINATE_MOUNTER))
    }
}

/// Looks at a Mac.
pub(crate) fn gather(reader: &Reader<'_>) -> Mac {
    let volume::Found { mounted, unmounted, elsewhere, disk } = volume::gather(reader);
    Mac {
        volume: mounted,
        unmounted,
        elsewhere,
        disk,
        synthetic: fstab::synthetic(reader),
        fstab: fstab::fstab(reader),
        jobs: jobs::gather(reader),
        shell_files: shell::gather(reader),
    }
}

/// Whether the running machine is a Mac.
pub fn is_here() -> bool {
    crate::system::kernel::is_mac()
}

/// Whether this is a Mac at all.
pub(crate) fn is_mac(reader: &Reader<'_>) -> bool {
    reader.machine.exists(Path::new(SYSTEM_VERSION))
}

/// `macOS 15.1 (24B83)`, when this is a Mac.
pub(crate) fn system_version(reader: &Reader<'_>) -> Option<String> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "PascalCase", default)]
    struct SystemVersion {
        product_name: String,
        product_version: String,
        product_build_version: String,
    }
    if !is_mac(reader) {
        return None;
    }
    let SystemVersion { product_name, product_version, product_build_version } =
        reader.property_list(SYSTEM_VERSION).unwrap_or_default();
    let name = if product_name.is_empty() { "macOS" } else { &product_name };
    Some(format!("{name} {product_version} ({product_build_version})"))
}
