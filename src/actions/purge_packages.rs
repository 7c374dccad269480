//! Packages of Debian's kind go, with their configuration.

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host};
use crate::system::command;
use crate::system::watched;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgePackages {
    /// Their names.
    pub packages: Vec<String>,
}

impl PurgePackages {
    /// Those of which dpkg has files or configuration.
    fn installed(&self) -> Result<Vec<&str>> {
        let is_there = |package: &str| -> Result<bool> {
            // It fails for a package that dpkg never heard of.
            let output = command::output("dpkg-query", &["-W", "-f", "${db:Status-Status}", package])?;
            Ok(output.status.success() && output.stdout != b"not-installed")
        };
        let mut installed = Vec::new();
        for package in &self.packages {
            if is_there(package)? {
                installed.push(package.as_str());
            }
        }
        Ok(installed)
    }
}

impl Act for PurgePackages {
    type Before = ();

    fn changes(&self) -> String {
        format!("removes the packages {} with their configuration", self.packages.join(", "))
    }

    fn undone_by(&self) -> String {
        "cannot be undone: install them again".to_owned()
    }

    fn is_irrevocable(&self) -> bool {
        true
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(self.installed()?.is_empty())
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    /// Nothing is asked or fetched, and a package that another one needs stays: then dpkg says so, and this fails.
    fn apply(&self, host: &Host<'_>, (): &()) -> Result<()> {
        let installed = self.installed()?;
        if installed.is_empty() {
            return Ok(());
        }
        // This run holds the lock of dpkg's frontends itself (dpkg(1), DPKG_FRONTEND_LOCKED).
        let mut dpkg = command::clean("dpkg");
        dpkg.env("DPKG_FRONTEND_LOCKED", "1")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .arg("--purge")
            .args(installed);
        let words = host.backups.join("dpkg-purge.words");
        watched::to_the_end(&mut dpkg, &words).context("dpkg --purge failed")?;
        Ok(())
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        super::irrevocable(&self.changes())
    }
}
