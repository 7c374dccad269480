//! Nix's volume has to be mounted while a run works on it.
//!
//! After a restart of a Mac it may be locked, or not mounted yet: then steps would work on an empty directory. This step changes nothing; whoever
//! goes on with a run, or back, asks [`NeedVolume::check`] first.

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host};
use crate::platform::volume;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeedVolume {
    /// The volume's UUID.
    pub uuid: String,
    /// Where it has to be mounted.
    pub mount_point: String,
}

impl NeedVolume {
    /// Fails when it is not mounted there.
    ///
    /// # Errors
    /// That, with what to do; and when diskutil does not answer.
    pub fn check(&self) -> Result<()> {
        let Self { uuid, mount_point } = self;
        match volume::find(uuid)? {
            Some(found) if found.mount_point == *mount_point => Ok(()),
            Some(found) => bail!(
                "the volume {uuid} ({}) is not mounted at {mount_point}: unlock and mount it (diskutil apfs unlockVolume, diskutil mount -mountPoint {mount_point} {uuid}), \
                 and try again",
                found.device
            ),
            None => {
                bail!("there is no volume {uuid}, which {mount_point} is: connect its disk, and try again")
            }
        }
    }
}

impl Act for NeedVolume {
    type Before = ();

    fn changes(&self) -> String {
        format!("makes sure that the volume {} is mounted at {}", self.uuid, self.mount_point)
    }

    fn undone_by(&self) -> String {
        "nothing to undo: it changes nothing".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, _: &Host<'_>, (): &()) -> Result<()> {
        self.check()
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        Ok(())
    }
}
