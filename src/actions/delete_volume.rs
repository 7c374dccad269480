//! The APFS volume that Nix lies on goes, with all that is on it; then its password.

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host};
use crate::remains::open_files;
use crate::system::command;

/// How security(1) ends when there is no such item.
const NO_ITEM: i32 = 44;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteVolume {
    /// Its UUID.
    pub uuid: String,
    /// Its name, for people.
    pub name: String,
    /// Where it is mounted.
    pub mount_point: String,
    /// The keychain's item with its password, if there is one.
    pub items: Vec<Item>,
}

/// An item of a keychain.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The keychain.
    pub keychain: String,
    /// The item's account.
    pub account: String,
    /// Its service.
    pub service: String,
}

impl Act for DeleteVolume {
    type Before = ();

    fn changes(&self) -> String {
        let item = if self.items.is_empty() { "" } else { ", and its password in the system's keychain" };
        format!("deletes the volume {} ({}) with all that is on it{item}", self.name, self.uuid)
    }

    fn undone_by(&self) -> String {
        "cannot be undone".to_owned()
    }

    fn is_irrevocable(&self) -> bool {
        true
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(!self.is_there()? && self.items.iter().map(Item::is_there).all(|there| matches!(there, Ok(false))))
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    /// The password goes last: a volume that could not be deleted is of no use without it.
    fn apply(&self, _: &Host<'_>, (): &()) -> Result<()> {
        if self.is_there()? {
            command::run("diskutil", &["apfs", "deleteVolume", &self.uuid]).with_context(|| self.users())?;
        }
        for item in &self.items {
            item.remove()?;
        }
        Ok(())
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        super::irrevocable(&self.changes())
    }
}

impl Item {
    fn is_there(&self) -> Result<bool> {
        let Self { keychain, account, service } = self;
        let words = ["find-generic-password", "-a", account, "-s", service, keychain];
        let output = command::output("security", &words)?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(NO_ITEM) => Ok(false),
            _ => bail!(
                "cannot look for the volume's password in {keychain}: security ended with {}",
                output.status
            ),
        }
    }

    fn remove(&self) -> Result<()> {
        let Self { keychain, account, service } = self;
        if self.is_there()? {
            command::run("security", &["delete-generic-password", "-a", account, "-s", service, keychain])?;
        }
        Ok(())
    }
}

impl DeleteVolume {
    /// `diskutil info` fails for a volume that is not there, and says so in a property list.
    fn is_there(&self) -> Result<bool> {
        let output = command::output("diskutil", &["info", "-plist", &self.uuid])?;
        if output.status.success() {
            return Ok(true);
        }
        let said = plist::from_bytes::<plist::Dictionary>(&output.stdout).unwrap_or_default();
        match said.get("ErrorMessage").and_then(plist::Value::as_string) {
            Some(why) if why.contains("Could not find disk") => Ok(false),
            why => bail!(
                "cannot find out whether the volume {} is there: {}",
                self.uuid,
                why.unwrap_or("diskutil failed")
            ),
        }
    }

    /// Who keeps the volume busy, for the message when it cannot be deleted.
    fn users(&self) -> String {
        let holders = open_files(&self.mount_point).unwrap_or_default();
        let name = |holder: &crate::remains::Holder| {
            format!("process {} ({}) uses {}", holder.pid, holder.command, holder.uses)
        };
        match holders.as_slice() {
            [] => format!("cannot delete the volume {}", self.name),
            _ => format!(
                "cannot delete the volume {}: {}; end it, and run nix-unroot resume",
                self.name,
                holders.iter().map(name).collect::<Vec<_>>().join(", ")
            ),
        }
    }
}
