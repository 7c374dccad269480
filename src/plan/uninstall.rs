//! The values of the plan that removes Nix.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Serialize;
use toml::Value;

use super::context::Context;
use crate::remains::{Home, Remains};

/// What an administrator can choose of a removal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uninstall {
    /// `/nix` stays.
    pub keep_store: bool,
    /// What Nix's commands left in people's homes goes, too.
    pub purge_homes: bool,
    /// How long running builds are waited for, in seconds.
    pub drain_timeout: u64,
}

impl Context {
    /// The values that follow from what was found and what was chosen.
    ///
    /// # Errors
    /// When something that was found cannot be written as TOML.
    pub(super) fn of_remains(remains: &Remains, wanted: &Uninstall) -> Result<Self> {
        let homes: Vec<Home> = remains
            .homes
            .iter()
            .filter_map(|home| match wanted.purge_homes {
                true => Some(home.clone()),
                false => {
                    Some(Home { names: home.of_installers(), ..home.clone() }).filter(|_| home.is_roots())
                }
            })
            .filter(|home| !home.names.is_empty())
            .collect();
        let accounts = !remains.users.is_empty() || !remains.groups.is_empty();
        let mac = remains.mac.clone().unwrap_or_default();
        // What mounts a store that stays, stays.
        let kept = mac.mounter().filter(|_| wanted.keep_store).map(|job| job.path.clone());
        let kept = |path: &str| kept.as_deref() == Some(path);
        let jobs: Vec<_> = mac.jobs.iter().filter(|job| !kept(&job.path)).cloned().collect();
        let files: Vec<_> = remains.files.iter().filter(|path| !kept(&path.to_string_lossy())).collect();
        let goes = remains.store && !wanted.keep_store;
        let trees: &[&str] = if goes && mac.volume.is_none() { &["/nix"] } else { &[] };
        let volumes: Vec<_> = mac.volume.into_iter().filter(|_| goes).collect();
        let lines = if wanted.keep_store { Vec::new() } else { mac.lines };
        let debian = remains.distribution.as_deref() == Some("debian") && !remains.packages.is_empty();
        let values = [
            ("units", value(&remains.units)?),
            ("build_uids", value(&remains.build_uids)?),
            ("drain_timeout", value(&wanted.drain_timeout)?),
            ("files", value(&files)?),
            ("blocks", value(&remains.blocks)?),
            ("directories", value(&remains.directories)?),
            // Lists of none or one, for steps that are there or not.
            (
                "account_directories",
                value(&accounts.then(|| PathBuf::from("/etc")).into_iter().collect::<Vec<_>>())?,
            ),
            ("users", value(&remains.users)?),
            ("groups", value(&remains.groups)?),
            ("package_lists", value(&debian.then_some(&remains.packages).into_iter().collect::<Vec<_>>())?),
            ("homes", value(&homes)?),
            ("trees", value(&trees)?),
            ("volumes", value(&volumes)?),
            ("lines", value(&lines)?),
            (
                "job_lists",
                value(&Some(jobs).filter(|jobs| !jobs.is_empty()).into_iter().collect::<Vec<_>>())?,
            ),
        ];
        Ok(Self { values: values.into_iter().map(|(name, value)| (name.to_owned(), Some(value))).collect() })
    }
}

fn value(found: &impl Serialize) -> Result<Value> {
    Value::try_from(found).context("cannot put what was found into a plan")
}
