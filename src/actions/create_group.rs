//! A system group.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::{Act, Host, account_debris};
use crate::system::command;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateGroup {
    /// The group's name.
    pub name: String,
    /// Its gid; without one the system picks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

impl Act for CreateGroup {
    type Before = ();

    fn changes(&self) -> String {
        format!("creates the system group {}", self.name)
    }

    fn undone_by(&self) -> String {
        format!("removes the group {}", self.name)
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        let Some(group) = users::get_group_by_name(&self.name) else { return Ok(false) };
        match self.gid {
            Some(gid) if group.gid() != gid => {
                bail!(
                    "there is a group {} already, with gid {}: choose another name or that gid",
                    self.name,
                    group.gid()
                )
            }
            _ => Ok(true),
        }
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, host: &Host<'_>, (): &()) -> Result<()> {
        // A tool that was killed before may have left something, also half a group.
        account_debris::sweep(host)?;
        if account_debris::is_half_made("group", "gshadow", &self.name) {
            self.undo(host, &())?;
        }
        // A run that was killed after groupadd finds it done.
        if self.is_done(host)? {
            return Ok(());
        }
        let gid = self.gid.map(|gid| format!("--gid={gid}"));
        let words = ["--system"].into_iter().chain(gid.as_deref()).chain([self.name.as_str()]);
        command::run("groupadd", &words.collect::<Vec<_>>())?;
        Ok(())
    }

    fn undo(&self, host: &Host<'_>, (): &()) -> Result<()> {
        // userdel removes a group of the user's name with it.
        if users::get_group_by_name(&self.name).is_some() {
            command::run("groupdel", &[&self.name])?;
        }
        account_debris::sweep(host)
    }
}
