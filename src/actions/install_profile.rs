//! The archive's Nix, and its certificates, come into a profile.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::register_paths::OwnersNix;
use super::unpack_archive::Unpacked;
use super::{Act, Host, show};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallProfile {
    /// The profile.
    pub profile: PathBuf,
    /// Who owns the store.
    pub user: String,
    /// That user's group.
    pub group: String,
    /// That user's home.
    pub home: PathBuf,
}

impl Act for InstallProfile {
    type Before = ();

    fn changes(&self) -> String {
        format!("installs the archive's Nix into {}, as {}", show(&self.profile), self.user)
    }

    fn undone_by(&self) -> String {
        "nothing to undo: the profile goes with the directory that was made for it".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, host: &Host<'_>, (): &()) -> Result<()> {
        let unpacked = Unpacked::load(host)?.context("nothing was unpacked")?;
        let contents = &unpacked.contents;
        let output = OwnersNix { user: &self.user, group: &self.group, home: &self.home }
            .command(&unpacked, "nix-env")?
            .arg("--profile")
            .arg(&self.profile)
            .arg("--install")
            .args([Some(&contents.nix), contents.certificates.as_ref()].into_iter().flatten().map(|path| path.to_path()))
            .output()
            .context("cannot start the archive's nix-env")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("cannot install Nix into {}: {}", show(&self.profile), said.trim());
        }
        Ok(())
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        Ok(())
    }
}
