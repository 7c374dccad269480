//! Whether the user or group of a name still is the one that a step made.
//!
//! Before a tool makes one, an empty file in the run's backups says that it is about to; afterwards the file holds the number. So an account
//! of somebody else's is told from ours also where the run was killed before, in or after the tool.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::conflict::{Conflict, Keep, Present, Version, put_aside, undecided};
use super::edit::{bytes_or_none, read_or_empty};
use super::{Host, gid_of, uid_of};
use crate::system::files::{self, Ownership};

/// What kind of account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A line in `/etc/passwd`.
    User,
    /// A line in `/etc/group`.
    Group,
}

/// The account of a name.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a> {
    /// User or group.
    pub kind: Kind,
    /// Its name.
    pub name: &'a str,
}

impl Account<'_> {
    /// The number that the step gave it, as a text; empty where a tool was about to make it, `None` where that never came.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn made(&self, host: &Host<'_>) -> Result<Option<String>> {
        let path = self.remembered(host);
        path.exists().then(|| read_or_empty(&path)).transpose()
    }

    /// Writes down that a tool is about to make it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(&self, host: &Host<'_>) -> Result<()> {
        self.write(host, "")
    }

    /// Writes down its number.
    ///
    /// # Errors
    /// When there is no such account, or it cannot be written.
    pub fn remember(&self, host: &Host<'_>) -> Result<()> {
        let id = match self.kind {
            Kind::User => uid_of(self.name)?,
            Kind::Group => gid_of(self.name)?,
        };
        self.write(host, &id.to_string())
    }

    /// The account of this name when the step did not make it. Where its number was not written down, `looks_ours` tells by the fields of its line
    /// in the account file (none, when it is in another database).
    ///
    /// # Errors
    /// When the account file, or what is remembered, cannot be read.
    pub fn of_somebody_else(
        &self,
        host: &Host<'_>,
        looks_ours: impl Fn(&[&str]) -> bool,
    ) -> Result<Option<(Conflict, Present)>> {
        let id = match self.kind {
            Kind::User => users::get_user_by_name(self.name).map(|user| user.uid()),
            Kind::Group => users::get_group_by_name(self.name).map(|group| group.gid()),
        };
        let Some(id) = id else { return Ok(None) };
        Ok(self.compare(id, &read_accounts(self.file())?, self.made(host)?, looks_ours))
    }

    /// Whether undoing is to go on with it: there is none, it is ours, or it was chosen that the state before comes back.
    ///
    /// # Errors
    /// When it is somebody else's and nothing was chosen.
    pub fn is_to_go(&self, host: &Host<'_>, looks_ours: impl Fn(&[&str]) -> bool) -> Result<bool> {
        let Some((conflict, now)) = self.of_somebody_else(host, looks_ours)? else { return Ok(true) };
        match host.choices.of(&conflict.path, &now) {
            Some(Keep::Theirs) => Ok(false),
            Some(Keep::Ours) => put_aside(&conflict.path, &now, host).map(|()| true),
            None => bail!(undecided(&conflict.path)),
        }
    }

    /// An error when somebody else made it since the step began.
    ///
    /// # Errors
    /// As said.
    pub fn ensure_ours(&self, host: &Host<'_>, looks_ours: impl Fn(&[&str]) -> bool) -> Result<()> {
        match self.of_somebody_else(host, looks_ours)? {
            Some((conflict, _)) => bail!(
                "{}: rename or remove that one, and try again, or nix-unroot rollback --keep theirs leaves it",
                conflict.reason
            ),
            None => Ok(()),
        }
    }

    fn compare(
        &self,
        id: u32,
        accounts: &str,
        made: Option<String>,
        looks_ours: impl Fn(&[&str]) -> bool,
    ) -> Option<(Conflict, Present)> {
        let line =
            accounts.lines().find(|line| line.split(':').next() == Some(self.name)).unwrap_or_default();
        let fields: Vec<_> = line.split(':').collect();
        let is_ours = match made.as_deref() {
            None => false,
            Some("") => looks_ours(&fields),
            Some(made) => made == id.to_string(),
        };
        if is_ours {
            return None;
        }
        // Its line alone, and that without members: other accounts go while this run is undone.
        let now = Present::File(match self.kind {
            Kind::User => line.into(),
            Kind::Group => fields.iter().take(3).copied().collect::<Vec<_>>().join(":").into_bytes(),
        });
        let (kind, id_name) = match self.kind {
            Kind::User => ("user", "uid"),
            Kind::Group => ("group", "gid"),
        };
        let made = made.filter(|made| !made.is_empty());
        let anew = if made.is_some() { " anew" } else { "" };
        let ours = made.map_or("none that is known: it was killed".to_owned(), |made| {
            format!("{} with the {id_name} {made}", self.name)
        });
        let conflict = Conflict {
            path: self.file().to_owned(),
            reason: format!("somebody else made the {kind} {}{anew}", self.name),
            before: Version::of(format!("no such {kind}")),
            ours: Version::of(ours),
            now: Version::of(format!("{} with the {id_name} {id}", self.name)),
            digest: now.digest(),
        };
        Some((conflict, now))
    }

    fn file(&self) -> &'static Path {
        Path::new(match self.kind {
            Kind::User => "/etc/passwd",
            Kind::Group => "/etc/group",
        })
    }

    fn remembered(&self, host: &Host<'_>) -> PathBuf {
        let id = if self.kind == Kind::User { "uid" } else { "gid" };
        host.backups.join(format!("{id}-of-{}", self.name))
    }

    fn write(&self, host: &Host<'_>, text: &str) -> Result<()> {
        let path = self.remembered(host);
        files::replace(&path, text.as_bytes(), Ownership::root(0o600))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// An account file, for looking only: somebody's name in it may be no text in UTF-8.
///
/// # Errors
/// When it cannot be read.
pub fn read_accounts(path: &Path) -> Result<String> {
    Ok(String::from_utf8_lossy(&bytes_or_none(path)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `daemon` is on every machine; its uid is not to become ours.
    #[test]
    fn a_resumed_run_takes_over_nobodys() {
        let dir = tempfile::tempdir().unwrap();
        let host = super::super::test_host::host(dir.path());
        std::fs::create_dir(&host.backups).unwrap();
        let account = Account { kind: Kind::User, name: "daemon" };
        account.ensure_ours(&host, |_| true).unwrap_err();
        account.begin(&host).unwrap();
        account.ensure_ours(&host, |_| false).unwrap_err();
        account.ensure_ours(&host, |_| true).unwrap();
    }

    #[test]
    fn an_account_is_ours_by_its_number_or_by_its_line() {
        let group = Account { kind: Kind::Group, name: "nix" };
        let text = "nixbld:x:30000:nix\nnix:x:990:alice\n";
        let reserved = |fields: &[&str]| fields.get(2) == Some(&"990");
        // What is remembered, the number now, and what the account is said to be when it is not ours.
        let rows = [
            (Some("990"), 990, None),
            (Some("991"), 990, Some("somebody else made the group nix anew")),
            (Some(""), 990, None),
            (None, 990, Some("somebody else made the group nix")),
        ];
        for (made, id, reason) in rows {
            let found = group.compare(id, text, made.map(str::to_owned), reserved);
            assert_eq!(found.as_ref().map(|(conflict, _)| conflict.reason.as_str()), reason, "{made:?} {id}");
            if let Some((conflict, now)) = found {
                let fewer = text.replace(":alice", ":");
                let (later, _) =
                    group.compare(id, &fewer, made.map(str::to_owned), reserved).expect("still theirs");
                assert_eq!(conflict.digest, later.digest, "it is asked for once, whoever leaves the group");
                assert_eq!(now, Present::File(b"nix:x:990".to_vec()));
            }
        }
        let found = group.compare(990, text, Some(String::new()), |_| false);
        assert!(found.is_some(), "its number was never written down, and it is not as we make them");
    }
}
