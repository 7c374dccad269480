//! The kernel knows an AppArmor profile.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host, show};
use crate::system::command;

/// Profiles that the kernel knows, a line each: `NAME (MODE)`.
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadApparmorProfile {
    /// The file that the profile stands in.
    pub path: PathBuf,
    /// Its name.
    pub name: String,
}

impl LoadApparmorProfile {
    fn is_loaded(&self) -> Result<bool> {
        let profiles =
            fs::read_to_string(LOADED).with_context(|| format!("cannot read {LOADED}: AppArmor is off"))?;
        Ok(lists(&profiles, &self.name))
    }
}

impl Act for LoadApparmorProfile {
    type Before = ();

    fn changes(&self) -> String {
        format!("loads the AppArmor profile {} from {}", self.name, show(&self.path))
    }

    fn undone_by(&self) -> String {
        "unloads it".to_owned()
    }

    /// What is loaded under that name may be an older text.
    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, _: &Host<'_>, (): &()) -> Result<()> {
        let arguments = ["--replace", "--skip-cache", &self.path.to_string_lossy()];
        command::run("apparmor_parser", &arguments).context("cannot load the gate's AppArmor profile")?;
        Ok(())
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        // Not while AppArmor is off: the machine may have been restarted without it.
        if self.path.exists() && self.is_loaded().unwrap_or(false) {
            let arguments = ["--remove", &self.path.to_string_lossy()];
            command::run("apparmor_parser", &arguments)
                .context("cannot unload the gate's AppArmor profile")?;
        }
        Ok(())
    }
}

fn lists(profiles: &str, name: &str) -> bool {
    profiles.lines().any(|line| line.rsplit_once(" (").is_some_and(|(listed, _)| listed == name))
}

#[cfg(test)]
mod tests {
    use super::lists;

    #[test]
    fn a_profile_is_found_by_its_whole_name() {
        let profiles = "a (enforce)\nnix-daemon-gate (unconfined)\n/usr/bin/x y (complain)\n";
        assert!(lists(profiles, "nix-daemon-gate") && lists(profiles, "/usr/bin/x y"));
        assert!(!lists(profiles, "nix-daemon") && !lists(profiles, "x y") && !lists("", ""));
    }
}
