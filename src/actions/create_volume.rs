//! A volume of APFS, and where it is encrypted its password in the system's keychain.
//!
//! The password comes first and is read from there, so a run that died goes on with the same one; neither the journal nor a command
//! line ever holds it. The volume is encrypted from its first byte, and not mounted by this step.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::delete_volume::in_use;
use super::{Act, Host, show};
use crate::platform::keychain::{Item, Secret};
use crate::platform::volume::{self, Volume};
use crate::system::files::{self, Ownership};

/// Holds the new volume's UUID, in the run's backups.
const FILE: &str = "volume-uuid";

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateVolume {
    /// Its name.
    pub name: String,
    /// The container of APFS that it is added to: `disk3`.
    pub container: String,
    /// Where its password is kept, when it is to be encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Item>,
}

/// What was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Was {
    /// A password that somebody left, which is taken and stays.
    has_password: bool,
}

impl Act for CreateVolume {
    type Before = Was;

    fn changes(&self) -> String {
        let Self { name, container, password } = self;
        match password {
            Some(item) => {
                format!(
                    "adds the encrypted volume {name} to {container}; its random password goes into {}",
                    item.keychain
                )
            }
            None => format!("adds the volume {name} to {container}"),
        }
    }

    fn undone_by(&self) -> String {
        "deletes the volume with all that is on it, then its password".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<Was> {
        if let Some(there) = volume::find(&self.name)? {
            bail!(
                "there is a volume {} already ({}): nix-unroot uninstall removes it, or diskutil apfs deleteVolume {0} when \
                 you know what is on it",
                self.name,
                there.device
            );
        }
        Ok(Was { has_password: self.password.as_ref().map_or(Ok(false), Item::is_there)? })
    }

    fn apply(&self, host: &Host<'_>, _: &Was) -> Result<()> {
        if let Some(item) = self.password.as_ref()
            && !item.is_there()?
        {
            item.add(&Secret::random()?)?;
        }
        if let Some(there) = self.ours(host)? {
            if there.is_encrypted() == self.password.is_some() {
                return self.finish(host, &there);
            }
            // diskutil was killed before it was done with the encryption; nothing was ever on it.
            volume::delete(&there.uuid)?;
        }
        let password = self.password.as_ref().map(Item::password).transpose()?;
        let made = volume::add(&self.container, &self.name, password.as_ref())?;
        if made.is_encrypted() != self.password.is_some() {
            bail!("diskutil made {} ({}) without the encryption that was asked for", self.name, made.device);
        }
        self.finish(host, &made)
    }

    fn undo(&self, host: &Host<'_>, was: &Was) -> Result<()> {
        if let Some(there) = self.ours(host)? {
            volume::delete(&there.uuid)
                .with_context(|| in_use(&self.name, &there.mount_point, "rollback"))?;
        }
        match &self.password {
            Some(item) if !was.has_password => item.remove(),
            _ => Ok(()),
        }
    }
}

/// The UUID of the volume that this run made; `None` when it did not come to that. Later steps ask by it, since another volume may have
/// the same name by then.
pub(super) fn made_by(host: &Host<'_>) -> Result<Option<String>> {
    made_in(&host.backups)
}

fn made_in(backups: &Path) -> Result<Option<String>> {
    let path = backups.join(FILE);
    match fs::read_to_string(&path) {
        Ok(uuid) => Ok(Some(uuid)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", show(&path))),
    }
}

impl CreateVolume {
    /// Whether a run made the volume, whose backups are in `backups`, and there is none any more.
    ///
    /// # Errors
    /// When diskutil does not answer.
    pub fn is_gone(&self, backups: &Path) -> Result<bool> {
        let made = made_in(backups)?;
        Ok(made.map(|uuid| volume::find(&uuid)).transpose()?.is_some_and(|found| found.is_none()))
    }
}

/// [`made_by`], of a step that comes after the volume was made.
pub(super) fn uuid(host: &Host<'_>, name: &str) -> Result<String> {
    made_by(host)?.with_context(|| format!("this run made no volume {name}"))
}

/// `text` with that UUID in its place.
pub(super) fn fill(text: &str, host: &Host<'_>, name: &str) -> Result<String> {
    Ok(text.replace(volume::UUID, &uuid(host, name)?))
}

impl CreateVolume {
    /// Writes down which one is ours, since later another one may have the name; and leaves it as the machine's next start will find it.
    fn finish(&self, host: &Host<'_>, made: &Volume) -> Result<()> {
        if made.is_encrypted() && made.mount_point.is_empty() {
            volume::lock(made)?;
        }
        let path = host.backups.join(FILE);
        files::replace(&path, made.uuid.as_bytes(), Ownership::root(0o600))
            .with_context(|| format!("cannot write {}", show(&path)))
    }

    /// The volume that this step made, if it did. There was none of its name before; until its UUID is written down it is not
    /// mounted, so one that is mounted is somebody else's.
    fn ours(&self, host: &Host<'_>) -> Result<Option<Volume>> {
        match made_by(host)? {
            Some(uuid) => volume::find(&uuid),
            None => match volume::find(&self.name)? {
                Some(there)
                    if !there.mount_point.is_empty() || there.container.as_ref() != Some(&self.container) =>
                {
                    bail!(
                        "there is another volume {} meanwhile ({}): unmount it and take its disk away, or rename it, and try again",
                        self.name,
                        there.device
                    )
                }
                there => Ok(there),
            },
        }
    }
}
