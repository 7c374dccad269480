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
    #[serde(rename = "VolumeUUID")]
    pub uuid: String,
    /// Its device: `disk3s7`.
    #[serde(rename = "DeviceIdentifier")]
    pub device: String,
    /// Where it is mounted; empty when it is not.
    #[serde(default)]
    pub mount_point: String,
    /// Whether owners count on it.
    #[serde(rename = "GlobalPermissionsEnabled", default)]
    pub owners_enabled: bool,
    /// Whether it is encrypted.
    #[serde(rename = "FileVault", default)]
    pub encrypted: bool,
}

/// The volume of this name or UUID. diskutil fails for one that is not there, and says so in a property list.
///
/// # Errors
/// When diskutil fails for another reason.
pub fn find(volume: &str) -> Result<Option<Volume>> {
    let output = command::output("diskutil", &["info", "-plist", volume])?;
    if output.status.success() {
        let read = plist::from_bytes(&output.stdout);
        return read
            .map(Some)
            .with_context(|| format!("diskutil gives {volume} another form than it should have"));
    }
    let said = plist::from_bytes::<plist::Dictionary>(&output.stdout).unwrap_or_default();
    match said.get("ErrorMessage").and_then(plist::Value::as_string) {
        Some(why) if why.contains("Could not find disk") => Ok(None),
        why => {
            bail!(
                "cannot find out whether the volume {volume} is there: {}",
                why.unwrap_or("diskutil failed")
            )
        }
    }
}

/// [`find`], of one that must be there.
///
/// # Errors
/// As [`find`], and when there is none.
pub fn existing(volume: &str) -> Result<Volume> {
    find(volume)?.with_context(|| format!("there is no volume {volume:?}"))
}

/// Adds a volume to a container, not mounted; encrypted from its first byte when there is a password.
///
/// # Errors
/// When diskutil fails.
pub fn add(container: &str, name: &str, password: Option<&Secret>) -> Result<()> {
    let mut words = vec!["apfs", "addVolume", container, "APFS", name];
    if password.is_some() {
        words.push("-stdinpassphrase");
    }
    words.push("-nomount");
    let input = password.map_or(&[][..], Secret::bytes);
    command::run_with_input("diskutil", &words, input)
        .with_context(|| format!("cannot make the volume {name}"))?;
    Ok(())
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

/// `text` with the volume's UUID in its place.
///
/// # Errors
/// When there is no such volume.
pub fn fill(text: &str, volume: &str) -> Result<String> {
    Ok(text.replace(UUID, &existing(volume)?.uuid))
}
