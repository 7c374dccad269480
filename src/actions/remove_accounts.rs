//! Users and groups go, from the account files themselves: account tools would touch more than their lines.

use std::path::{Path, PathBuf};

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conflict::Scan;
use super::edit::{AccountLock, Original, read_or_empty};
use super::{Act, Host};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveAccounts {
    /// Names of users.
    pub users: Vec<String>,
    /// Names of groups.
    pub groups: Vec<String>,
    /// Directory of the account files: `/etc`.
    pub directory: PathBuf,
}

/// The account files, and which of their fields (counting from 0) list users.
const FILES: [(&str, Owner, &[usize]); 6] = [
    ("passwd", Owner::User, &[]),
    ("shadow", Owner::User, &[]),
    ("group", Owner::Group, &[3]),
    ("gshadow", Owner::Group, &[2, 3]),
    ("subuid", Owner::User, &[]),
    ("subgid", Owner::User, &[]),
];

/// Whose lines a file holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    User,
    Group,
}

/// What the removal of users and groups is called.
pub(super) fn removes_accounts(users: &[String], groups: &[String]) -> String {
    let names = |names: &[String]| match names {
        [] => "none".to_owned(),
        [one] => one.clone(),
        [first, .., last] => format!("{first} to {last} ({})", names.len()),
    };
    format!("removes the users {} and the groups {}", names(users), names(groups))
}

impl Act for RemoveAccounts {
    /// The files that have something to lose, by name.
    type Before = Vec<(String, Original)>;

    fn changes(&self) -> String {
        removes_accounts(&self.users, &self.groups)
    }

    fn undone_by(&self) -> String {
        "adds them again, with the ids that they had".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        for (name, owner, lists) in FILES {
            let text = read_or_empty(&self.directory.join(name))?;
            if self.without(&text, owner, lists) != text {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn capture(&self, host: &Host<'_>) -> Result<Self::Before> {
        let mut before = Vec::new();
        for (name, owner, lists) in FILES {
            let path = self.directory.join(name);
            let text = read_or_empty(&path)?;
            if self.without(&text, owner, lists) != text {
                before.push((name.to_owned(), Original::capture(&path, host)?));
            }
        }
        Ok(before)
    }

    fn apply(&self, _: &Host<'_>, before: &Self::Before) -> Result<()> {
        let _lock = self.lock()?;
        for (name, original) in before {
            let (owner, lists) = kind(name);
            let text = original.read()?;
            let rest = self.without(&text, owner, lists);
            if rest != text {
                original.write(&rest)?;
            }
        }
        Ok(())
    }

    fn undo(&self, host: &Host<'_>, before: &Self::Before) -> Result<()> {
        let _lock = self.lock()?;
        for (name, original) in before.iter().rev() {
            let (owner, lists) = kind(name);
            let with = |text: &str| Ok(self.with(text, &original.held(host)?, owner, lists));
            if let Some(file) = original.to_undo(host)? {
                file.restore(&with(&file.read()?)?, host)?;
            }
            original.follow(host, with)?;
        }
        Ok(())
    }

    fn look_for_conflicts(&self, scan: &mut Scan<'_>, before: &Self::Before) -> Result<()> {
        before.iter().try_for_each(|(_, original)| original.look_for_conflicts(scan).map(drop))
    }
}

impl RemoveAccounts {
    /// The lock of the account tools; a test's directory has none.
    fn lock(&self) -> Result<Option<AccountLock>> {
        (self.directory == Path::new("/etc")).then(AccountLock::take).transpose()
    }

    fn is_ours(&self, line: &str, owner: Owner) -> bool {
        let names = if owner == Owner::User { &self.users } else { &self.groups };
        line.split(':').next().is_some_and(|name| names.iter().any(|ours| ours == name))
    }

    /// `text` without our lines, and without our users in lists of members. Every other byte stays.
    fn without(&self, text: &str, owner: Owner, lists: &[usize]) -> String {
        let others = text.split_inclusive('\n').filter(|line| !self.is_ours(line, owner));
        others.map(|line| self.without_members(line, lists)).collect()
    }

    fn without_members(&self, line: &str, lists: &[usize]) -> String {
        let body = line.trim_end_matches('\n');
        let field = |(index, field): (usize, &str)| {
            let names: Vec<_> = field.split(',').collect();
            let kept: Vec<_> =
                names.iter().copied().filter(|name| !self.users.iter().any(|user| user == name)).collect();
            if lists.contains(&index) && kept.len() < names.len() { kept.join(",") } else { field.to_owned() }
        };
        let fields: Vec<_> = body.split(':').enumerate().map(field).collect();
        fields.join(":") + &line[body.len()..]
    }

    /// `now` with what `held` had and [`Self::without`] took: the very text when nobody edited it since, else our lines at
    /// its end, and our members where the rest of the line is as it was.
    fn with(&self, now: &str, held: &str, owner: Owner, lists: &[usize]) -> String {
        if now == self.without(held, owner, lists) {
            return held.to_owned();
        }
        let mut text: String = now
            .split_inclusive('\n')
            .map(|line| {
                let was = |old: &&str| !self.is_ours(old, owner) && self.without_members(old, lists) == line;
                held.split_inclusive('\n').find(was).unwrap_or(line)
            })
            .collect();
        let name = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
        let there: Vec<_> = text.lines().map(name).collect();
        for line in held.lines().filter(|line| self.is_ours(line, owner) && !there.contains(&name(line))) {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

fn kind(name: &str) -> (Owner, &'static [usize]) {
    let found = FILES.into_iter().find(|(file, ..)| *file == name);
    // Only names of this table are captured; a journal that names another gets a file in which nothing is ours.
    found.map_or((Owner::User, &[]), |(_, owner, lists)| (owner, lists))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::test_host::host;
    use super::*;

    fn action(directory: &Path) -> RemoveAccounts {
        fs::write(directory.join("passwd"), "root:x:0:0:::\nnixbld1:x:31:30:::\nalice:x:1000:1000:::\n")
            .unwrap();
        fs::write(directory.join("shadow"), "root:*:::\nnixbld1:!:::\nalice:*:::").unwrap();
        fs::write(directory.join("group"), "kvm:x:5:alice,nixbld1\nnixbld:x:30:nixbld1\nwheel:x:6:\n")
            .unwrap();
        fs::write(directory.join("gshadow"), "kvm:!:nixbld1:alice,nixbld1\nnixbld:!::nixbld1\n").unwrap();
        RemoveAccounts {
            users: vec!["nixbld1".to_owned()],
            groups: vec!["nixbld".to_owned()],
            directory: directory.to_owned(),
        }
    }

    #[test]
    fn they_go_and_come_back_to_the_byte() {
        let dir = tempfile::tempdir().unwrap();
        let (host, action) = (host(dir.path()), action(dir.path()));
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        let before = action.capture(&host).unwrap();
        for _ in 0..2 {
            action.apply(&host, &before).unwrap();
            assert!(action.is_done(&host).unwrap());
        }
        assert_eq!(read("passwd"), "root:x:0:0:::\nalice:x:1000:1000:::\n");
        assert_eq!(read("shadow"), "root:*:::\nalice:*:::");
        assert_eq!(read("group"), "kvm:x:5:alice\nwheel:x:6:\n");
        assert_eq!(read("gshadow"), "kvm:!::alice\n");
        assert!(!dir.path().join("subuid").exists(), "nothing was made");
        for _ in 0..2 {
            action.undo(&host, &before).unwrap();
            assert_eq!(action.capture(&host).unwrap(), before);
        }
    }

    #[test]
    fn a_deleted_file_comes_back_with_everybody_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let (host, action) = (host(dir.path()), action(dir.path()));
        let before = action.capture(&host).unwrap();
        action.apply(&host, &before).unwrap();
        fs::remove_file(dir.path().join("passwd")).unwrap();
        action.undo(&host, &before).unwrap();
        assert_eq!(action.capture(&host).unwrap(), before);
    }

    #[test]
    fn what_others_added_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (host, action) = (host(dir.path()), action(dir.path()));
        let before = action.capture(&host).unwrap();
        action.apply(&host, &before).unwrap();
        fs::write(dir.path().join("group"), "kvm:x:5:alice\nwheel:x:6:bob\n").unwrap();
        fs::write(dir.path().join("passwd"), "root:x:0:0:::\nbob:x:1001:1001:::").unwrap();
        for _ in 0..2 {
            action.undo(&host, &before).unwrap();
            let group = fs::read_to_string(dir.path().join("group")).unwrap();
            assert_eq!(group, "kvm:x:5:alice,nixbld1\nwheel:x:6:bob\nnixbld:x:30:nixbld1\n");
            let passwd = fs::read_to_string(dir.path().join("passwd")).unwrap();
            assert_eq!(passwd, "root:x:0:0:::\nbob:x:1001:1001:::\nnixbld1:x:31:30:::\n");
        }
    }
}
