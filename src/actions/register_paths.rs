//! Nix's database gets to know what was unpacked, from Nix itself, run as the store's owner.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::added_paths::Owner;
use super::unpack_archive::Unpacked;
use super::{Act, Host, gid_of, uid_of};
use crate::system::{checkpoint, command};
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

    fn capture(&self, _: &Host<'_>) -> Result<i64> {
        self.owner().last_row()
    }

    fn apply(&self, host: &Host<'_>, _: &i64) -> Result<()> {
        let unpacked = Unpacked::load(host)?.context("nothing was unpacked")?;
        let mut child = OwnersNix { user: &self.user, group: &self.group, home: &self.home }
            .command(&unpacked.contents.nix, "nix-store")?
            .arg("--load-db")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start the archive's nix-store")?;
        checkpoint::inside_command(child.id());
        // A child that ends early closes its input; what it says is the reason then.
        let written = child
            .stdin
            .take()
            .map_or(Ok(()), |mut input| input.write_all(unpacked.contents.registration.as_bytes()));
        let output = child.wait_with_output().context("cannot wait for nix-store --load-db")?;
        checkpoint::inside("command-ended");
        if !output.status.success() {
            bail!("nix-store --load-db failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        written.context("nix-store --load-db did not read everything")?;
        self.owner().mark(host, KEY)
    }

    fn undo(&self, host: &Host<'_>, after: &i64) -> Result<()> {
        self.owner().withdraw(host, KEY, *after, &self.store);
        Ok(())
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
