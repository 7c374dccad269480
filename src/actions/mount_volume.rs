//! A volume is mounted by the job of launchd that mounts it at each start: so it is seen at once that the job can.

use std::path::PathBuf;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::create_volume;
use super::delete_volume::in_use;
use super::{Act, Host};
use crate::platform::{launchd, volume};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountVolume {
    /// The volume's name.
    pub volume: String,
    /// Where the job mounts it.
    pub mount_point: String,
    /// The job.
    pub label: String,
    /// Its property list.
    pub list: PathBuf,
}

impl Act for MountVolume {
    /// Whether launchd might start the job: somebody may have forbidden one of that name.
    type Before = bool;

    fn changes(&self) -> String {
        format!(
            "loads {}, which mounts {} at {}; lets owners count there",
            self.label, self.volume, self.mount_point
        )
    }

    fn undone_by(&self) -> String {
        "unmounts it, and unloads the job".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<bool> {
        launchd::is_enabled(&self.label)
    }

    fn apply(&self, host: &Host<'_>, _: &bool) -> Result<()> {
        let uuid = create_volume::uuid(host, &self.volume)?;
        launchd::set_enabled(&self.label, true)?;
        if volume::existing(&uuid)?.mount_point != self.mount_point {
            match launchd::is_loaded(&self.label)? {
                true => launchd::start(&self.label)?,
                false => launchd::load(&self.label, &self.list)?,
            }
        }
        let mounted = volume::wait_until_mounted(&uuid, &self.mount_point)
            .with_context(|| format!("{} does not mount it: see `launchctl print system/{0}`", self.label))?;
        volume::enable_owners(&mounted)
    }

    fn undo(&self, host: &Host<'_>, was_enabled: &bool) -> Result<()> {
        launchd::unload(&self.label)?;
        launchd::set_enabled(&self.label, *was_enabled)?;
        let there = create_volume::made_by(host)?.map(|uuid| volume::find(&uuid)).transpose()?.flatten();
        let Some(there) = there.filter(|there| there.mount_point == self.mount_point) else { return Ok(()) };
        volume::unmount(&there).with_context(|| in_use(&self.volume, &self.mount_point, "rollback"))
    }
}
