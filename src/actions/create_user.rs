//! A system user that nobody can log in as.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use users::os::unix::UserExt;

use super::account::{Account, Kind};
use super::conflict::{Present, Scan, put_aside};
use super::drain::end_all_of;
use super::drift::{Aspect, Drift, Repair};
use super::edit::{AccountLock, bytes_or_none};
use super::file_state::FileState;
use super::{Act, Action, Host, account_debris, gid_of, show};
use crate::system::command;

/// The files that userdel edits besides the accounts.
const SUBID_FILES: [&str; 2] = ["/etc/subuid", "/etc/subgid"];

/// What it gets instead of a shell.
const SHELL: &str = "/usr/sbin/nologin";

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
            self.account().ensure_ours(host, |fields| self.looks_ours(fields))?;
            return self.account().remember(host);
        }
        self.account().begin(host)?;
        let gid = format!("--gid={}", gid_of(&self.group)?);
        let uid = self.uid.map(|uid| format!("--uid={uid}"));
        let home = format!("--home-dir={}", self.home.display());
        let comment = format!("--comment={}", self.comment);
        let shell = format!("--shell={SHELL}");
        let fixed = ["--system", "--no-create-home", "--no-user-group"];
        let given = [shell.as_str(), &gid, &home, &comment];
        let words = fixed.into_iter().chain(given).chain(uid.as_deref()).chain([self.name.as_str()]);
        command::run("useradd", &words.collect::<Vec<_>>())?;
        self.account().remember(host)
    }

    fn undo(&self, host: &Host<'_>, before: &Self::Before) -> Result<()> {
        if !self.account().is_to_go(host, |fields| self.looks_ours(fields))? {
            return Ok(());
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
        if let Some((conflict, _)) =
            self.account().of_somebody_else(scan.host, |fields| self.looks_ours(fields))?
        {
            scan.conflict(conflict);
        }
        Ok(())
    }

    fn look_for_drift(&self, host: &Host<'_>, _: Option<&Self::Before>) -> Result<Vec<Drift>> {
        let made = self.account().made(host)?.unwrap_or_default();
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
    fn account(&self) -> Account<'_> {
        Account { kind: Kind::User, name: &self.name }
    }

    /// Whether a useradd of ours that was killed may have made the user with this line.
    fn looks_ours(&self, fields: &[&str]) -> bool {
        let Ok(group) = gid_of(&self.group) else { return false };
        let [_, _, uid, gid, comment, home, shell] = fields else { return false };
        self.uid.is_none_or(|ours| *uid == ours.to_string())
            && *gid == group.to_string()
            && *comment == self.comment
            && Path::new(home) == self.home
            && *shell == SHELL
    }

    /// Keeps a subid file in which somebody gave the user more ranges: userdel takes those lines.
    fn keep_lines_of_others(&self, path: &Path, before: &FileState, host: &Host<'_>) -> Result<()> {
        let held = String::from_utf8_lossy(&before.read(host)?).into_owned();
        let of_user = |line: &&str| line.split(':').next() == Some(&self.name);
        let bytes = bytes_or_none(path)?;
        let now = String::from_utf8_lossy(&bytes);
        if now.lines().filter(of_user).all(|line| held.lines().any(|other| other == line)) {
            return Ok(());
        }
        host.observer.note(&format!(
            "{} gives {} more ranges, which go with the user",
            path.display(),
            self.name
        ));
        put_aside(path, &Present::File(bytes), host)
    }

    /// Gives back the user's lines that a subid file held before there was a user.
    fn give_back_lines(&self, path: &Path, before: &FileState, host: &Host<'_>) -> Result<()> {
        let held = before.read(host)?;
        let held = String::from_utf8_lossy(&held);
        let _lock = AccountLock::take()?;
        let is_ours = |line: &&str| line.split(':').next() == Some(&self.name);
        let bytes = bytes_or_none(path)?;
        let now = String::from_utf8_lossy(&bytes);
        if now == held && !held.is_empty() {
            // A rollback that died before the time stamp leaves it so.
            return before.restore_over(path, None, host);
        }
        let gone: Vec<_> =
            held.lines().filter(is_ours).filter(|line| !now.lines().any(|other| other == *line)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        if std::str::from_utf8(&bytes).is_err() {
            let (path, gone) = (show(path), gone.join(", "));
            host.observer.note(&format!(
                "{path} is no text in UTF-8 any more: what it held before does not come back into it: {gone}"
            ));
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

    #[cfg(target_os = "linux")]
    use super::super::test_host::conflicts;
    use super::super::test_host::host;
    use super::*;

    fn action() -> CreateUser {
        CreateUser {
            name: "nix".to_owned(),
            uid: None,
            group: "root".to_owned(),
            home: PathBuf::from("/var/empty"),
            comment: "Nix daemon and store".to_owned(),
        }
    }

    #[test]
    fn more_ranges_are_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (host, path) = (host(dir.path()), dir.path().join("subuid"));
        fs::create_dir(&host.backups).unwrap();
        let aside = host.backups.join("put-aside-subuid");
        fs::write(&path, "nix:3:4\n").unwrap();
        let before = FileState::capture(&path, &host).unwrap();
        action().keep_lines_of_others(&path, &before, &host).unwrap();
        assert!(!aside.exists());
        fs::write(&path, "nix:3:4\nnix:9:9\n").unwrap();
        action().keep_lines_of_others(&path, &before, &host).unwrap();
        assert_eq!(fs::read_to_string(aside).unwrap(), "nix:3:4\nnix:9:9\n");
    }

    #[test]
    fn a_killed_useradd_leaves_exactly_our_line() {
        let looks_ours = |line: &str| action().looks_ours(&line.split(':').collect::<Vec<_>>());
        let ours = "nix:x:990:0:Nix daemon and store:/var/empty:/usr/sbin/nologin";
        assert!(looks_ours(ours));
        for (part, theirs) in
            [(":0:", ":7:"), ("Nix daemon", "Nick"), ("/var/empty", "/home"), ("nologin", "sh")]
        {
            assert!(!looks_ours(&ours.replace(part, theirs)), "{theirs}");
        }
        assert!(!looks_ours(""), "a user of another database");
        assert!(!CreateUser { uid: Some(7), ..action() }.looks_ours(&ours.split(':').collect::<Vec<_>>()));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_user_that_somebody_else_made_is_a_conflict() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        fs::create_dir(&host.backups).unwrap();
        let action = CreateUser { name: "daemon".to_owned(), ..action() };
        let path = host.backups.join("uid-of-daemon");
        // Its uid, another one, none because useradd was killed, and none because it was never begun.
        for (made, count) in [(Some("1"), 0), (Some("4711"), 1), (Some(""), 1), (None, 1)] {
            let _ = fs::remove_file(&path);
            if let Some(made) = made {
                fs::write(&path, made).unwrap();
            }
            assert_eq!(conflicts(dir.path(), &action, &Vec::new()).len(), count, "{made:?}");
        }
    }

    #[test]
    fn lines_that_went_with_the_user_come_back_with_the_time_stamp() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (host, path) = (host(dir.path()), dir.path().join("subuid"));
        let action = action();
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
