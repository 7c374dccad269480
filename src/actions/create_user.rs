//! A system user that nobody can log in as.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use users::os::unix::UserExt;

use super::conflict::{Conflict, Keep, Present, Scan, Version, put_aside, undecided};
use super::drain::end_all_of;
use super::drift::{Aspect, Drift, Repair};
use super::edit::{AccountLock, read_or_empty};
use super::file_state::FileState;
use super::{Act, Action, Host, account_debris, gid_of, uid_of};
use crate::system::command;
use crate::system::files::{self, Ownership};

/// The files that userdel edits besides the accounts.
const SUBID_FILES: [&str; 2] = ["/etc/subuid", "/etc/subgid"];

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// The user's name.
    pub name: String,
    /// Its uid; without one the system picks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its primary group, which exists.
    pub group: String,
    /// Its home, which is not made.
    pub home: PathBuf,
    /// The comment (GECOS) field.
    pub comment: String,
}

impl Act for CreateUser {
    /// The subid files: userdel takes lines of the user's name with it, also those that were there before the user.
    type Before = Vec<FileState>;

    fn changes(&self) -> String {
        format!("creates the system user {} (no login, no password)", self.name)
    }

    fn undone_by(&self) -> String {
        format!("removes the user {}", self.name)
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        let Some(user) = users::get_user_by_name(&self.name) else { return Ok(false) };
        let fits = users::get_group_by_name(&self.group)
            .is_some_and(|group| group.gid() == user.primary_group_id())
            && self.uid.is_none_or(|uid| user.uid() == uid)
            && user.uid() != 0
            && user.home_dir() == self.home;
        if !fits {
            bail!(
                "there is a user {} already, with another uid, group or home: remove it, or choose another name (--nix-user)",
                self.name
            );
        }
        Ok(true)
    }

    fn capture(&self, host: &Host<'_>) -> Result<Self::Before> {
        SUBID_FILES.iter().map(|path| FileState::capture(Path::new(path), host)).collect()
    }

    fn apply(&self, host: &Host<'_>, _: &Self::Before) -> Result<()> {
        // A tool that was killed before may have left something, also half a user.
        account_debris::sweep(host)?;
        account_debris::remove_half("passwd", "shadow", &self.name, host)?;
        if self.is_done(host)? {
            return self.remember_uid(host);
        }
        let gid = format!("--gid={}", gid_of(&self.group)?);
        let uid = self.uid.map(|uid| format!("--uid={uid}"));
        let home = format!("--home-dir={}", self.home.display());
        let comment = format!("--comment={}", self.comment);
        let fixed = ["--system", "--no-create-home", "--no-user-group", "--shell=/usr/sbin/nologin"];
        let given = [gid.as_str(), &home, &comment];
        let words = fixed.into_iter().chain(given).chain(uid.as_deref()).chain([self.name.as_str()]);
        command::run("useradd", &words.collect::<Vec<_>>())?;
        self.remember_uid(host)
    }

    fn undo(&self, host: &Host<'_>, before: &Self::Before) -> Result<()> {
        if let Some((conflict, now)) = self.made_anew(host)? {
            match host.choices.of(&conflict.path, &now) {
                Some(Keep::Theirs) => return Ok(()),
                Some(Keep::Ours) => put_aside(&conflict.path, &now, host)?,
                None => bail!(undecided(&conflict.path)),
            }
        }
        if let Some(user) = users::get_user_by_name(&self.name) {
            // Where no init system stopped it, something may run still; userdel refuses then.
            end_all_of(host, user.uid())?;
            for (path, state) in SUBID_FILES.iter().map(Path::new).zip(before) {
                self.keep_lines_of_others(path, state, host)?;
            }
            command::run("userdel", &[&self.name])?;
        }
        account_debris::remove_half("shadow", "passwd", &self.name, host)?;
        for (path, state) in SUBID_FILES.iter().zip(before) {
            self.give_back_lines(Path::new(path), state, host)?;
        }
        account_debris::sweep(host)
    }

    fn look_for_conflicts(&self, scan: &mut Scan<'_>, _: &Self::Before) -> Result<()> {
        if let Some((conflict, _)) = self.made_anew(scan.host)? {
            scan.conflict(conflict);
        }
        Ok(())
    }

    fn look_for_drift(&self, host: &Host<'_>, _: Option<&Self::Before>) -> Result<Vec<Drift>> {
        let made = read_or_empty(&host.backups.join(format!("uid-of-{}", self.name)))?;
        let one = |found: String, repair| {
            Ok(vec![Drift::new(Path::new(&self.name), Aspect::Content, found, repair)])
        };
        let Some(user) = users::get_user_by_name(&self.name) else {
            let found = "there is no such user any more".to_owned();
            let repair = match made.parse() {
                // The same id: all that it owned is its again.
                Ok(uid) => {
                    let again = Self { uid: Some(uid), ..self.clone() };
                    Repair::By(Box::new(Action::CreateUser(again)))
                }
                Err(_) => Repair::Never("make it again, with the uid of what it owned".to_owned()),
            };
            return one(found, repair);
        };
        if made.is_empty() || made == user.uid().to_string() {
            return Ok(Vec::new());
        }
        let remedy = format!("give it its uid back: usermod --uid {made} {}", self.name);
        one(format!("it was made anew, with the uid {} and not {made}", user.uid()), Repair::Never(remedy))
    }
}

impl CreateUser {
    /// The uid that this step gave the user, for a later look whether it still is the same user.
    fn remember_uid(&self, host: &Host<'_>) -> Result<()> {
        let path = host.backups.join(format!("uid-of-{}", self.name));
        files::replace(&path, uid_of(&self.name)?.to_string().as_bytes(), Ownership::root(0o600))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// A user of this name that somebody made after removing ours, with its line of the account file.
    fn made_anew(&self, host: &Host<'_>) -> Result<Option<(Conflict, Present)>> {
        let made = read_or_empty(&host.backups.join(format!("uid-of-{}", self.name)))?;
        let Some(user) = users::get_user_by_name(&self.name) else { return Ok(None) };
        if made.is_empty() || made == user.uid().to_string() {
            return Ok(None);
        }
        let path = Path::new("/etc/passwd");
        let accounts = read_or_empty(path)?;
        // Its line alone: other accounts go while this run is undone.
        let line = accounts.lines().find(|line| line.split(':').next() == Some(&self.name));
        let now = Present::File(line.unwrap_or_default().into());
        let conflict = Conflict {
            path: path.to_owned(),
            reason: format!("somebody else made the user {} anew", self.name),
            before: Version::of("no such user"),
            ours: Version::of(format!("{} with the uid {made}", self.name)),
            now: Version::of(format!("{} with the uid {}", self.name, user.uid())),
            digest: now.digest(),
        };
        Ok(Some((conflict, now)))
    }

    /// Keeps a subid file in which somebody gave the user more ranges: userdel takes those lines.
    fn keep_lines_of_others(&self, path: &Path, before: &FileState, host: &Host<'_>) -> Result<()> {
        let held = String::from_utf8_lossy(&before.read(host)?).into_owned();
        let of_user = |line: &&str| line.split(':').next() == Some(&self.name);
        let now = read_or_empty(path)?;
        if now.lines().filter(of_user).all(|line| held.lines().any(|other| other == line)) {
            return Ok(());
        }
        host.observer.note(&format!(
            "{} gives {} more ranges, which go with the user",
            path.display(),
            self.name
        ));
        put_aside(path, &Present::File(now.into_bytes()), host)
    }

    /// Gives back the user's lines that a subid file held before there was a user.
    fn give_back_lines(&self, path: &Path, before: &FileState, host: &Host<'_>) -> Result<()> {
        let held = before.read(host)?;
        let held = String::from_utf8_lossy(&held);
        let _lock = AccountLock::take()?;
        let is_ours = |line: &&str| line.split(':').next() == Some(&self.name);
        let now = read_or_empty(path)?;
        if now == held && !held.is_empty() {
            // A rollback that died before the time stamp leaves it so.
            return before.restore_over(path, None, host);
        }
        let gone: Vec<_> =
            held.lines().filter(is_ours).filter(|line| !now.lines().any(|other| other == *line)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let rest: Vec<_> = held.lines().filter(|line| !is_ours(line)).collect();
        if now.lines().eq(rest) {
            return before.restore_over(path, None, host);
        }
        let end = if now.is_empty() || now.ends_with('\n') { "" } else { "\n" };
        before.write_instead(path, &format!("{now}{end}{}\n", gone.join("\n")))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::test_host::host;
    use super::*;

    #[test]
    fn lines_that_went_with_the_user_come_back_with_the_time_stamp() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (host, path) = (host(dir.path()), dir.path().join("subuid"));
        let action = CreateUser {
            name: "nix".to_owned(),
            uid: None,
            group: "nix".to_owned(),
            home: PathBuf::from("/var/lib/nix"),
            comment: String::new(),
        };
        let held = "alice:1:2\nnix:3:4\n";
        fs::write(&path, held).unwrap();
        let before = FileState::capture(&path, &host).unwrap();
        // After userdel, and after a kill between the file and its time stamp.
        for now in ["alice:1:2\n", held] {
            fs::write(&path, now).unwrap();
            action.give_back_lines(&path, &before, &host).unwrap();
            assert_eq!(FileState::capture(&path, &host).unwrap(), before, "{now:?}");
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        action.give_back_lines(&path, &FileState::Absent, &host).unwrap();
        assert!(path.exists(), "an empty file of somebody else's stays");
    }
}
