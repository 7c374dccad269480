//! A system group.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::drift::{Aspect, Drift, Repair};
use super::edit::read_or_empty;
use super::{Act, Action, Host, account_debris, gid_of};
use crate::system::command;
use crate::system::files::{self, Ownership};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateGroup {
    /// The group's name.
    pub name: String,
    /// Its gid; without one the system picks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

impl CreateGroup {
    /// Where the gid that this step gave the group is kept, for a later look whether it still is the same group.
    fn remembered(&self, host: &Host<'_>) -> PathBuf {
        host.backups.join(format!("gid-of-{}", self.name))
    }

    fn remember_gid(&self, host: &Host<'_>) -> Result<()> {
        let path = self.remembered(host);
        files::replace(&path, gid_of(&self.name)?.to_string().as_bytes(), Ownership::root(0o600))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// A local user whose primary group this is.
fn local_user_of(gid: u32) -> Result<Option<String>> {
    let gid = gid.to_string();
    let users = read_or_empty(Path::new("/etc/passwd"))?;
    let user = users.lines().find(|line| line.split(':').nth(3) == Some(&gid));
    Ok(user.and_then(|line| line.split(':').next()).map(str::to_owned))
}

/// Whom somebody added to the group.
fn members_of(name: &str) -> Result<Option<String>> {
    let groups = read_or_empty(Path::new("/etc/group"))?;
    let group = groups.lines().find(|line| line.split(':').next() == Some(name));
    let members = group.and_then(|line| line.split(':').nth(3)).filter(|members| !members.is_empty());
    Ok(members.map(str::to_owned))
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
        account_debris::remove_half("group", "gshadow", &self.name, host)?;
        // A run that was killed after groupadd finds it done.
        if self.is_done(host)? {
            return self.remember_gid(host);
        }
        let gid = self.gid.map(|gid| format!("--gid={gid}"));
        let words = ["--system"].into_iter().chain(gid.as_deref()).chain([self.name.as_str()]);
        command::run("groupadd", &words.collect::<Vec<_>>())?;
        self.remember_gid(host)
    }

    fn look_for_drift(&self, host: &Host<'_>, _: Option<&()>) -> Result<Vec<Drift>> {
        let made = read_or_empty(&self.remembered(host))?;
        let one = |found: String, repair| {
            Ok(vec![Drift::new(Path::new(&self.name), Aspect::Content, found, repair)])
        };
        let Some(group) = users::get_group_by_name(&self.name) else {
            let repair = match made.parse() {
                Ok(gid) => {
                    let again = Self { gid: Some(gid), ..self.clone() };
                    Repair::By(Box::new(Action::CreateGroup(again)))
                }
                Err(_) => Repair::Never("make it again, with the gid of what it owned".to_owned()),
            };
            return one("there is no such group any more".to_owned(), repair);
        };
        if made.is_empty() || made == group.gid().to_string() {
            return Ok(Vec::new());
        }
        let remedy = format!("give it its gid back: groupmod --gid {made} {}", self.name);
        one(format!("it was made anew, with the gid {} and not {made}", group.gid()), Repair::Never(remedy))
    }

    fn undo(&self, host: &Host<'_>, (): &()) -> Result<()> {
        // userdel removes a group of the user's name with it.
        let Some(group) = users::get_group_by_name(&self.name) else {
            account_debris::remove_half("gshadow", "group", &self.name, host)?;
            return account_debris::sweep(host);
        };
        // groupdel refuses to remove a group that somebody needs.
        if let Some(user) = local_user_of(group.gid())? {
            host.observer.note(&format!("the group {} stays: it is now the group of {user}", self.name));
            return account_debris::sweep(host);
        }
        if let Some(members) = members_of(&self.name)? {
            host.observer.note(&format!("the group {} goes; its members were {members}", self.name));
        }
        command::run("groupdel", &[&self.name])?;
        account_debris::sweep(host)
    }
}
