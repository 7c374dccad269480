//! Nix's database gets to know what was unpacked, from Nix itself, run as the store's owner.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::added_paths::Owner;
use super::unpack_archive::Unpacked;
use super::{Act, Host, gid_of, uid_of};
use crate::system::{command, watched};
use crate::types::StorePath;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterPaths {
    /// Who owns the store and its database.
    pub user: String,
    /// That user's group.
    pub group: String,
    /// That user's home.
    pub home: PathBuf,
    /// The store.
    pub store: PathBuf,
}

/// What this step's records are called in the run's backups.
const KEY: &str = "registered";
/// How long Nix may take, which waits for whoever else has the store's locks.
pub(super) const NIX_TIME: Duration = Duration::from_secs(30 * 60);

impl RegisterPaths {
    fn owner(&self) -> Owner<'_> {
        Owner { user: &self.user, group: &self.group }
    }
}

impl Act for RegisterPaths {
    /// The newest row of the database.
    type Before = i64;

    fn changes(&self) -> String {
        format!("runs the archive's nix-store --load-db as {}", self.user)
    }

    fn undone_by(&self) -> String {
        "takes them out of the database and the store, except what was built since and needs them".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, host: &Host<'_>) -> Result<i64> {
        self.owner().last_row(host)
    }

    fn apply(&self, host: &Host<'_>, _: &i64) -> Result<()> {
        let unpacked = Unpacked::load(host)?.context("nothing was unpacked")?;
        let mut load = OwnersNix { user: &self.user, group: &self.group, home: &self.home }
            .command(&unpacked.contents.nix, "nix-store")?;
        let registration = unpacked.contents.registration.into_bytes();
        watched::answer(load.arg("--load-db"), registration, host.limits(NIX_TIME))
            .context("nix-store --load-db failed")?;
        self.owner().mark(host, KEY)
    }

    fn undo(&self, host: &Host<'_>, after: &i64) -> Result<()> {
        self.owner().withdraw(host, KEY, *after, &self.store)
    }
}

/// Programs of a Nix in the store, run as the store's owner: never as root (DESIGN section 5).
pub(super) struct OwnersNix<'a> {
    pub user: &'a str,
    pub group: &'a str,
    pub home: &'a std::path::Path,
}

impl OwnersNix<'_> {
    /// A command that opens the store itself, without a daemon, whatever `nix.conf` says by now.
    pub(super) fn command(&self, nix: &StorePath, program: &str) -> Result<Command> {
        let path = nix.to_path().join("bin").join(program);
        let mut command = command::clean(&path.to_string_lossy());
        command
            .uid(uid_of(self.user)?)
            .gid(gid_of(self.group)?)
            .env("HOME", self.home)
            .env("USER", self.user)
            // The one thing that is built is the profile's directory of links, which Nix makes itself (builtin:buildenv).
            .env(
                "NIX_CONFIG",
                "store = local\nbuild-users-group =\nsandbox = false\nsubstitute = false\n\
                 keep-build-log = false\n",
            );
        Ok(command)
    }
}
