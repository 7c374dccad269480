//! What Nix's commands left in a home goes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use users::os::unix::UserExt;

use super::{Act, Host};
use crate::remains::Home;
use crate::system::command;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurgeHome {
    /// The home, and what of it goes.
    pub home: Home,
}

impl PurgeHome {
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
        let user = users::get_user_by_name(&self.home.user)
            .filter(|user| user.home_dir() == Path::new(&self.home.path))
            .with_context(|| {
                format!("{} is not the home of {} any more", self.home.path.display(), self.home.user)
            })?;
        let (uid, gid) = (format!("--reuid={}", user.uid()), format!("--regid={}", user.primary_group_id()));
        let mut words: Vec<std::ffi::OsString> = vec![uid.into(), gid.into(), "--clear-groups".into()];
        words.extend(
            ["--no-new-privs", "rm", "--recursive", "--force", "--one-file-system", "--"].map(Into::into),
        );
        words.extend(self.paths().map(Into::into));
        command::run("setpriv", &words)?;
        Ok(())
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        super::irrevocable(&self.changes())
    }
}
