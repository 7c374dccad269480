//! A system group.

use std::path::Path;

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::account::{Account, Kind, read_accounts};
use super::conflict::Scan;
use super::drift::{Aspect, Drift, Repair};
use super::{Act, Action, Host, account_debris};
use crate::system::command;

/// Below it are the gids of the system (`SYS_GID_MAX` in login.defs(5), unless somebody changed it).
const FIRST_OF_PEOPLE: u32 = 1000;

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
    fn account(&self) -> Account<'_> {
        Account { kind: Kind::Group, name: &self.name }
    }

    /// Whether a groupadd of ours that was killed may have made the group with this line.
    fn looks_ours(&self, fields: &[&str]) -> bool {
        let gid = fields.get(2).and_then(|gid| gid.parse::<u32>().ok());
        gid.is_some_and(|gid| self.gid.map_or(gid < FIRST_OF_PEOPLE, |ours| gid == ours))
    }
}

/// A local user whose primary group this is.
fn local_user_of(gid: u32) -> Result<Option<String>> {
    let gid = gid.to_string();
    let users = read_accounts(Path::new("/etc/passwd"))?;
    let user = users.lines().find(|line| line.split(':').nth(3) == Some(&gid));
    Ok(user.and_then(|line| line.split(':').next()).map(str::to_owned))
}

/// Whom somebody added to the group.
fn members_of(name: &str) -> Result<Option<String>> {
    let groups = read_accounts(Path::new("/etc/group"))?;
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
            self.account().ensure_ours(host, |fields| self.looks_ours(fields))?;
            return self.account().remember(host);
        }
        self.account().begin(host)?;
        let gid = self.gid.map(|gid| format!("--gid={gid}"));
        let words = ["--system"].into_iter().chain(gid.as_deref()).chain([self.name.as_str()]);
        command::run("groupadd", &words.collect::<Vec<_>>())?;
        self.account().remember(host)
    }

    fn look_for_conflicts(&self, scan: &mut Scan<'_>, (): &()) -> Result<()> {
        if let Some((conflict, _)) =
            self.account().of_somebody_else(scan.host, |fields| self.looks_ours(fields))?
        {
            scan.conflict(conflict);
        }
        Ok(())
    }

    fn look_for_drift(&self, host: &Host<'_>, _: Option<&()>) -> Result<Vec<Drift>> {
        let made = self.account().made(host)?.unwrap_or_default();
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
        if !self.account().is_to_go(host, |fields| self.looks_ours(fields))? {
            return Ok(());
        }
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

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    use super::super::test_host::{conflicts, host};
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_group_that_was_made_anew_is_a_conflict() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        std::fs::create_dir(&host.backups).unwrap();
        let action = CreateGroup { name: "daemon".to_owned(), gid: None };
        let path = host.backups.join("gid-of-daemon");
        // Its gid, another one, and none because groupadd was never begun.
        for (made, count) in [(Some("1"), 0), (Some("4711"), 1), (None, 1)] {
            let _ = std::fs::remove_file(&path);
            if let Some(made) = made {
                std::fs::write(&path, made).unwrap();
            }
            assert_eq!(conflicts(dir.path(), &action, &()).len(), count, "{made:?}");
        }
    }

    #[test]
    fn a_killed_groupadd_leaves_the_gid_that_was_asked_for_or_one_of_the_system() {
        let looks_ours = |gid, line: &str| {
            let group = CreateGroup { name: "nix".to_owned(), gid };
            group.looks_ours(&line.split(':').collect::<Vec<_>>())
        };
        assert!(looks_ours(Some(30_000), "nix:x:30000:") && looks_ours(None, "nix:x:990:"));
        assert!(!looks_ours(Some(30_000), "nix:x:990:") && !looks_ours(None, "nix:x:1001:"));
        assert!(!looks_ours(None, ""), "a group of another database");
    }
}
