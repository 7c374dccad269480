//! Packages of the distribution go, with their configuration.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{Act, Host};
use crate::system::command;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgePackages {
    /// Whose packages they are: `debian`, `fedora`, `arch`.
    pub distribution: String,
    /// Their names.
    pub packages: Vec<String>,
}

impl PurgePackages {
    /// The command that asks whether a package is there, and the one that removes some. Nothing is asked, nothing is
    /// fetched, and what depends on them keeps them (the command then fails).
    fn commands(&self) -> Result<(&'static [&'static str], &'static [&'static str])> {
        Ok(match self.distribution.as_str() {
            "debian" => (&["dpkg-query", "-W"], &["dpkg", "--purge"]),
            "fedora" => (&["rpm", "-q"], &["rpm", "--erase"]),
            "arch" => (&["pacman", "-Q"], &["pacman", "--remove", "--nosave", "--noconfirm"]),
            other => anyhow::bail!(
                "the packages of {other:?} are not known: remove {} by hand",
                self.packages.join(", ")
            ),
        })
    }

    fn installed(&self) -> Result<Vec<&str>> {
        let (query, _) = self.commands()?;
        let is_there = |package: &&str| {
            command::output(query[0], &[&query[1..], &[package]].concat())
                .is_ok_and(|output| output.status.success())
        };
        Ok(self.packages.iter().map(String::as_str).filter(is_there).collect())
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

    fn apply(&self, _: &Host<'_>, (): &()) -> Result<()> {
        let installed = self.installed()?;
        if !installed.is_empty() {
            let (_, remove) = self.commands()?;
            command::run(remove[0], &[&remove[1..], &installed].concat())?;
        }
        Ok(())
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        super::irrevocable(&self.changes())
    }
}
