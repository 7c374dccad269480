//! What an administrator can choose of a plan.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::range::wanted_range;
use crate::archive::Source;
use crate::facts::Facts;
use crate::findings;
use crate::types::SubidRange;

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// A root-owned Nix becomes an unprivileged one.
    Migrate,
    /// A machine without Nix gets an unprivileged one.
    Install,
}

/// Choices that a plan depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// What the plan is for.
    pub purpose: Purpose,
    /// The binary archive that Nix comes from.
    pub archive: Option<Source>,
    /// A PEM file of certificates to trust when fetching, and for the daemon to trust.
    pub certificates: Option<PathBuf>,
    /// The proxy to fetch through.
    pub proxy: Option<String>,
    /// Variables of the daemon's environment, by name: proxies and certificates.
    pub environment: Vec<(String, String)>,
    /// Lines for `nix.conf`.
    pub extra_conf: Option<String>,
    /// Whether shells are to find Nix by themselves.
    pub change_shells: bool,
    /// Whether an installed Nix is started and verified.
    pub start: bool,
    /// Whether no init system is there to start the daemon.
    pub without_init: bool,
    /// Name of the user that will own the store.
    pub nix_user: String,
    /// Name of its group.
    pub nix_group: String,
    /// Its uid; without one the system picks.
    pub nix_uid: Option<u32>,
    /// Its gid; without one the system picks.
    pub nix_gid: Option<u32>,
    /// Name of the root scanner's user and group.
    pub scan_user: String,
    /// The range for build uids; without one Nix's default, or the next free one.
    pub subid_range: Option<SubidRange>,
    /// How long running builds are waited for, in seconds.
    pub drain_timeout: u64,
    /// What the Nix group is to be able to read.
    pub share: findings::Share,
    /// Leaves another installer's receipt and uninstaller where they are.
    pub keep_installer: bool,
    /// Whether a Mac may be changed, although that was tried on simulated ones only.
    pub untried_on_macs: bool,
    /// Keys of blockers that do not block.
    pub accept: Vec<String>,
    /// This program.
    pub program: PathBuf,
    /// The directory that holds the two helpers.
    pub helpers: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            purpose: Purpose::Migrate,
            archive: None,
            certificates: None,
            proxy: None,
            environment: Vec::new(),
            extra_conf: None,
            change_shells: true,
            start: true,
            without_init: false,
            nix_user: "nix".to_owned(),
            nix_group: "nix".to_owned(),
            nix_uid: None,
            nix_gid: None,
            scan_user: "nix-root-scan".to_owned(),
            subid_range: None,
            drain_timeout: 300,
            share: findings::Share::default(),
            keep_installer: false,
            untried_on_macs: false,
            accept: Vec::new(),
            program: PathBuf::from(crate::platform::paths::PROGRAM),
            helpers: PathBuf::from(crate::platform::paths::LIBEXEC_DIR),
        }
    }
}

impl Options {
    /// What findings depend on.
    pub fn for_findings(&self, facts: &Facts, another_run: Option<String>) -> findings::Options {
        findings::Options {
            drain_timeout_seconds: self.drain_timeout,
            nix_user: self.nix_user.clone(),
            range: wanted_range(facts, self),
            another_run,
            installing: self.purpose == Purpose::Install,
            brings_nix: self.archive.is_some(),
            share: self.share,
            keep_installer: self.keep_installer,
            without_init: self.without_init,
            untried_on_macs: self.untried_on_macs,
            accept: self.accept.clone(),
        }
    }
}
