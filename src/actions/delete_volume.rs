//! The APFS volume that Nix lies on goes, with all that is on it; then its password.

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host};
use crate::platform::keychain::Item;
use crate::platform::volume;
use crate::remains::{Holder, open_below};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteVolume {
    /// Its UUID.
    pub uuid: String,
    /// Its name, for people.
    pub name: String,
    /// Its device when the plan was made, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device: String,
    /// Where it is mounted.
    pub mount_point: String,
    /// The keychain's item with its password, if there is one.
    pub items: Vec<Item>,
}

impl Act for DeleteVolume {
    type Before = ();

    fn changes(&self) -> String {
        let item = if self.items.is_empty() { "" } else { ", and its password in the system's keychain" };
        let device = if self.device.is_empty() { String::new() } else { format!("{}, ", self.device) };
        format!("deletes the volume {} ({device}{}) with all that is on it{item}", self.name, self.uuid)
    }

    fn undone_by(&self) -> String {
        "cannot be undone".to_owned()
    }

    fn is_irrevocable(&self) -> bool {
        true
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(volume::find(&self.uuid)?.is_none()
            && self.items.iter().map(Item::is_there).all(|there| matches!(there, Ok(false))))
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    /// The password goes last: a volume that could not be deleted is of no use without it.
    fn apply(&self, _: &Host<'_>, (): &()) -> Result<()> {
        if volume::find(&self.uuid)?.is_some() {
            volume::delete(&self.uuid).with_context(|| in_use(&self.name, &self.mount_point, "resume"))?;
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

/// Why a volume cannot go: who keeps it busy, and what to do then.
pub(super) fn in_use(name: &str, mount_point: &str, and_then: &str) -> String {
    let mounted = Some(mount_point).filter(|path| !path.is_empty());
    let holders = mounted.and_then(|path| open_below(path, path).ok()).unwrap_or_default();
    let shown = |holder: &Holder| format!("process {} ({}) uses {}", holder.pid, holder.command, holder.uses);
    match holders.as_slice() {
        [] => format!("cannot take the volume {name} away"),
        _ => format!(
            "cannot take the volume {name} away: {}; end it, and run nix-unroot {and_then}",
            holders.iter().map(shown).collect::<Vec<_>>().join(", ")
        ),
    }
}
