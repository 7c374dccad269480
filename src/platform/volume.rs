//! Volumes of APFS on a Mac, with diskutil(8).

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::keychain::Secret;
use crate::system::command;

/// Stands in texts for the UUID of a volume that is made only by the run that writes them.
pub const UUID: &str = "@VOLUME_UUID@";
/// How long a volume may take to appear where a job of launchd mounts it.
const MOUNT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// What `diskutil info -plist` says of a volume, as far as it is needed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// Its UUID.
    #[serde(rename = "VolumeUUID", default)]
    pub uuid: String,
    /// Its name.
    #[serde(rename = "VolumeName", default)]
    pub name: String,
    /// Its device: `disk3s7`.
    #[serde(rename = "DeviceIdentifier", default)]
    pub device: String,
    /// `apfs`.
    #[serde(rename = "FilesystemType", default)]
    pub file_system: String,
    /// The container of APFS that it lies in: `disk3`.
    #[serde(rename = "APFSContainerReference")]
    pub container: Option<String>,
    /// Where it is mounted; empty when it is not.
    #[serde(default)]
    pub mount_point: String,
    /// Whether owners count on it.
    #[serde(rename = "GlobalPermissionsEnabled", default)]
    pub owners_enabled: bool,
    /// Whether it is encrypted with a password of its own; `None` when diskutil does not say.
    #[serde(rename = "FileVault")]
    pub encrypted: Option<bool>,
    /// Whether it can be written to.
    #[serde(rename = "WritableVolume", default)]
    pub writable: bool,
    /// Why diskutil tells nothing of it.
    error_message: Option<String>,
}

impl Volume {
    /// What `diskutil info -plist` wrote, whatever it ended with; `None` when there is no such volume.
    ///
    /// # Errors
    /// When diskutil says that it failed, or wrote something else; without the volume's name.
    pub fn read(said: &[u8]) -> Result<Option<Self>> {
        let volume: Self = plist::from_bytes(said).context("diskutil writes another form than it should")?;
        match &volume.error_message {
            Some(why) if why.contains("Could not find disk") => Ok(None),
            Some(why) => bail!("diskutil failed: {why}"),
            None => Ok(Some(volume)),
        }
    }

    /// Whether a password of its own is known to encrypt it.
    pub fn is_encrypted(&self) -> bool {
        self.encrypted == Some(true)
    }
}

/// The volume of this name or UUID. diskutil fails for one that is not there, and says so in a property list.
///
/// # Errors
/// When diskutil fails for another reason.
pub fn find(volume: &str) -> Result<Option<Volume>> {
    let output = command::output("diskutil", &["info", "-plist", volume])?;
    let found = Volume::read(&output.stdout).and_then(|found| match found {
        Some(found) if output.status.success() && !found.uuid.is_empty() => Ok(Some(found)),
        Some(_) => bail!("diskutil ended with {} and names no UUID", output.status),
        None => Ok(None),
    });
    found.with_context(|| format!("cannot find out whether the volume {volume} is there"))
}

/// [`find`], of one that must be there.
///
/// # Errors
/// As [`find`], and when there is none.
pub fn existing(volume: &str) -> Result<Volume> {
    find(volume)?.with_context(|| format!("there is no volume {volume:?}"))
}

/// Adds a volume to a container, not mounted; encrypted from its first byte when there is a password. The new one: its device stands
/// in what diskutil says, because another one may have its name.
///
/// # Errors
/// When diskutil fails, or does not name it.
pub fn add(container: &str, name: &str, password: Option<&Secret>) -> Result<Volume> {
    let mut words = vec!["apfs", "addVolume", container, "APFS", name];
    if password.is_some() {
        words.push("-stdinpassphrase");
    }
    words.push("-nomount");
    let input = password.map_or(&[][..], Secret::bytes);
    let said = command::run_with_input("diskutil", &words, input)
        .with_context(|| format!("cannot make the volume {name}"))?;
    let device = said.lines().find_map(|line| line.trim().strip_prefix("Created new APFS Volume "));
    existing(device.with_context(|| format!("diskutil does not say which volume it made: {said}"))?.trim())
}

/// Locks a volume, as it is after a start of the machine. Whether one that was never mounted can be locked is not documented: what
/// counts is that the job that unlocks it can.
///
/// # Errors
/// When diskutil cannot be run.
pub fn lock(volume: &Volume) -> Result<()> {
    command::output("diskutil", &["apfs", "lockVolume", &volume.uuid])?;
    Ok(())
}

/// Deletes a volume with all that is on it.
///
/// # Errors
/// When diskutil fails: somebody uses it.
pub fn delete(uuid: &str) -> Result<()> {
    command::run("diskutil", &["apfs", "deleteVolume", uuid])?;
    Ok(())
}

/// Unmounts a volume. One that is not mounted is fine.
///
/// # Errors
/// When diskutil fails: somebody uses it.
pub fn unmount(volume: &Volume) -> Result<()> {
    if !volume.mount_point.is_empty() {
        command::run("diskutil", &["unmount", &volume.uuid])?;
    }
    Ok(())
}

/// Lets owners count on a mounted volume.
///
/// # Errors
/// When diskutil fails.
pub fn enable_owners(volume: &Volume) -> Result<()> {
    if !volume.owners_enabled {
        command::run("diskutil", &["enableOwnership", &volume.device])?;
    }
    Ok(())
}

/// Waits until the volume is mounted there.
///
/// # Errors
/// When it is not, after a minute.
pub fn wait_until_mounted(volume: &str, mount_point: &str) -> Result<Volume> {
    let start = Instant::now();
    loop {
        let found = existing(volume)?;
        if found.mount_point == mount_point {
            return Ok(found);
        }
        if start.elapsed() > MOUNT {
            bail!("the volume {volume} was not mounted at {mount_point} within {} s", MOUNT.as_secs());
        }
        thread::sleep(POLL);
    }
}
