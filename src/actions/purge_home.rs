//! What Nix's commands left in a home goes.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use users::os::unix::UserExt;

use super::{Act, Host};
use crate::facts::macos;
use crate::platform::directory;
use crate::remains::Home;
use crate::system::trees;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeHome {
    /// The home, and what of it goes.
    pub home: Home,
}

impl PurgeHome {
    /// Uid and gid of the user whose home this is, and still is.
    fn owner(&self) -> Result<(u32, u32)> {
        let found = match macos::is_here() {
            true => directory::user(&self.home.user)?,
            false => users::get_user_by_name(&self.home.user)
                .map(|user| (user.uid(), user.primary_group_id(), user.home_dir().to_owned())),
        };
        found.filter(|(_, _, home)| *home == self.home.path).map(|(uid, gid, _)| (uid, gid)).with_context(
            || format!("{} is not the home of {} any more", self.home.path.display(), self.home.user),
        )
    }

    fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.home.names.iter().map(|name| self.home.path.join(name))
    }
}

impl Act for PurgeHome {
    type Before = ();

    fn changes(&self) -> String {
        let names: Vec<_> = self.home.names.iter().map(|name| name.to_string_lossy()).collect();
        format!("removes {} from {}, as {}", names.join(", "), self.home.path.display(), self.home.user)
    }

    fn undone_by(&self) -> String {
        "cannot be undone".to_owned()
    }

    fn is_irrevocable(&self) -> bool {
        true
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(!self.paths().any(|path| fs::symlink_metadata(path).is_ok()))
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    /// With the rights of the home's owner: `.cache` may be a link to anywhere, and root would follow it.
    fn apply(&self, host: &Host<'_>, (): &()) -> Result<()> {
        if self.is_done(host)? {
            return Ok(());
        }
        let paths: Vec<_> = self.paths().collect();
        trees::remove_as(self.owner()?, &paths).with_context(|| {
            format!("cannot remove all of it as {}: remove the rest yourself", self.home.user)
        })
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        super::irrevocable(&self.changes())
    }
}
