//! Nix's volume has to be mounted while a run works on it.
//!
//! After a restart of a Mac it may be locked, or not mounted yet: then steps would work on an empty directory. This step changes nothing; whoever
//! goes on with a run, or back, asks [`NeedVolume::check`] first.

use std::path::Path;

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Action, Host};
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
            None => bail!(
                "there is no volume {uuid}, which {mount_point} is: connect its disk, and try again; when it was deleted, nix-unroot \
                 uninstall removes the rest"
            ),
        }
    }

    /// Whether there is no such volume at all, mounted or not.
    ///
    /// # Errors
    /// When diskutil does not answer.
    pub fn is_gone(&self) -> Result<bool> {
        Ok(volume::find(&self.uuid)?.is_none())
    }
}

/// Whether all that an action changes lies below `mount_point`: without the volume there is nothing of it to undo.
pub fn works_below(action: &Action, mount_point: &Path) -> bool {
    let path = match action {
        Action::Reown(action) => &action.root,
        Action::SetOwner(action) => &action.path,
        Action::CreateDirectory(action) => &action.path,
        Action::LinkSocket(action) => &action.path,
        Action::RemoveFile(action) => &action.path,
        Action::BackUpDatabase(action) => &action.path,
        Action::HandOverDatabase(action) => &action.path,
        Action::UnpackArchive(action) => &action.store,
        Action::RegisterPaths(action) => &action.store,
        Action::InstallProfile(action) => &action.profile,
        _ => return false,
    };
    path.starts_with(mount_point)
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
