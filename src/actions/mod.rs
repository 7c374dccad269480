//! What a plan can do: each action knows whether it is already so, what to remember, how to do it and how to undo it.
//!
//! Adding an action is adding a file and a line in the list below. Rules for all of them:
//!
//! - [`Act::capture`] reads and never writes; what it returns is durable before [`Act::apply`] is called.
//! - `apply` and `undo` may be killed at any instant and are then called again with the same captured state: they
//!   must lead to the same end from wherever they stopped.
//! - `undo` gives back what was captured, and is right also when `apply` never began.

mod account;
mod account_debris;
mod acl_entry;
mod add_line;
mod added_paths;
mod append_block;
pub mod conflict;
mod copy_into_home;
mod create_directory;
mod create_group;
mod create_log;
mod create_record;
mod create_user;
mod create_volume;
mod database;
mod delete_tree;
mod delete_volume;
mod drain;
pub mod drift;
mod edit;
mod exclude_from_backup;
mod fetch_archive;
mod file_state;
mod forget_archive;
mod install_profile;
mod install_program;
mod keep_files;
mod keep_jobs_stopped;
mod keep_stopped;
mod link_socket;
mod load_apparmor_profile;
mod make_mount_point;
mod mount_volume;
pub mod need_volume;
mod no_writers;
mod purge_home;
mod purge_packages;
mod put_symlink;
mod register_paths;
mod reload_units;
mod remove_accounts;
mod remove_block;
mod remove_directory;
mod remove_file;
mod remove_lines;
mod remove_records;
mod reown;
mod replace_block;
mod replace_lines;
mod set_owner;
mod share_file;
mod start_jobs;
mod start_units;
mod stop_jobs;
mod stop_units;
mod subid_line;
mod switch_job;
mod unpack_archive;
mod verify;
mod write_file;
mod write_for_volume;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use conflict::{Choices, Scan};
use drift::{Aspect, Drift};

use crate::facts::macos;
use crate::platform::directory;
use crate::system::text;
use crate::system::watched::Limits;

/// What an action may use besides its own parameters.
pub struct Host<'a> {
    /// A directory of this run, root's alone, for what is too large for the journal.
    pub backups: PathBuf,
    /// Where progress is told.
    pub observer: &'a dyn Observer,
    /// Set when the run is to stop: long actions look at it and return an error.
    pub cancelled: &'a AtomicBool,
    /// Whose version stays of what somebody else changed.
    pub choices: Choices,
}

impl Host<'_> {
    /// An error when the run is to stop.
    ///
    /// # Errors
    /// When a signal asked for it.
    pub fn check_cancelled(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            bail!("stopped by a signal");
        }
        Ok(())
    }

    /// Limits for a child with another user's rights: this time, and until the run is to stop.
    fn limits(&self, time: Duration) -> Limits<'_> {
        Limits::of_time(time).until(self.cancelled)
    }
}

impl std::fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("backups", &self.backups).finish_non_exhaustive()
    }
}

/// Who watches a run. All methods may be called from any thread.
pub trait Observer: Sync {
    /// Something an administrator should read, now and in the log.
    fn note(&self, text: &str);
    /// How far a long step is: things done, and about how many there are (0 when nobody knows).
    fn advance(&self, done: u64, total: u64, unit: &str);
}

/// What every action implements.
pub trait Act {
    /// What is remembered for undoing.
    type Before: Serialize + DeserializeOwned;

    /// What it changes, for people: `creates the system user nix`.
    fn changes(&self) -> String;
    /// How that is undone, for people: `removes the user nix`.
    fn undone_by(&self) -> String;
    /// Whether all is already so; then the step is skipped and never undone.
    fn is_done(&self, host: &Host<'_>) -> Result<bool>;
    /// What is there now. Reads only.
    fn capture(&self, host: &Host<'_>) -> Result<Self::Before>;
    /// Makes it so.
    fn apply(&self, host: &Host<'_>, before: &Self::Before) -> Result<()>;
    /// Gives back what was there.
    fn undo(&self, host: &Host<'_>, before: &Self::Before) -> Result<()>;
    /// Whether it can never be undone. A plan has such steps at its end, and says so; once one has begun, a run only goes
    /// forward, and what was captured is empty.
    fn is_irrevocable(&self) -> bool {
        false
    }
    /// Tells the scan what this step wrote, or what others made of it that `undo` cannot decide about. Reads only; `undo`
    /// looks once more, and fails where there is no choice.
    fn look_for_conflicts(&self, _: &mut Scan<'_>, _: &Self::Before) -> Result<()> {
        Ok(())
    }
    /// What is not any more as this step left it; `before` is missing when the step found its work done. Reads only.
    fn look_for_drift(&self, _: &Host<'_>, _: Option<&Self::Before>) -> Result<Vec<Drift>> {
        Ok(Vec::new())
    }
    /// Whether this step, which came later, decides about it: then it does not matter what earlier steps left there.
    fn decides(&self, _: &Path, _: Aspect) -> bool {
        false
    }
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:literal => $variant:ident($type:ty),)*) => {
        /// An action with its parameters, as it stands in a plan.
        #[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
        #[serde(tag = "action")]
        pub enum Action {
            $($(#[$doc])* #[serde(rename = $name)] $variant($type),)*
        }

        impl Action {
            /// The name of the action in plans.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }

            /// What it changes, for people.
            pub fn changes(&self) -> String {
                match self { $(Self::$variant(action) => action.changes(),)* }
            }

            /// How that is undone, for people.
            pub fn undone_by(&self) -> String {
                match self { $(Self::$variant(action) => action.undone_by(),)* }
            }

            /// Whether it can never be undone.
            pub fn is_irrevocable(&self) -> bool {
                match self { $(Self::$variant(action) => action.is_irrevocable(),)* }
            }

            /// Whether all is already so.
            ///
            /// # Errors
            /// When that cannot be found out.
            pub fn is_done(&self, host: &Host<'_>) -> Result<bool> {
                match self { $(Self::$variant(action) => action.is_done(host),)* }
            }

            /// What is there now, as JSON for the journal.
            ///
            /// # Errors
            /// When it cannot be read.
            pub fn capture(&self, host: &Host<'_>) -> Result<String> {
                match self { $(Self::$variant(action) => to_journal(&action.capture(host)?),)* }
            }

            /// Makes it so.
            ///
            /// # Errors
            /// When it cannot be done, or `captured` is not what [`Action::capture`] returned.
            pub fn apply(&self, host: &Host<'_>, captured: &str) -> Result<()> {
                match self { $(Self::$variant(action) => action.apply(host, &from_journal(captured)?),)* }
            }

            /// Gives back what was there.
            ///
            /// # Errors
            /// As [`Action::apply`].
            pub fn undo(&self, host: &Host<'_>, captured: &str) -> Result<()> {
                match self { $(Self::$variant(action) => action.undo(host, &from_journal(captured)?),)* }
            }

            /// What is not any more as it left it.
            ///
            /// # Errors
            /// As [`Action::apply`], and when what is there cannot be read.
            pub fn look_for_drift(&self, host: &Host<'_>, captured: Option<&str>) -> Result<Vec<Drift>> {
                match self { $(Self::$variant(action) => {
                    let before = captured.map(from_journal).transpose()?;
                    action.look_for_drift(host, before.as_ref())
                })* }
            }

            /// Whether it decides about this, when it was done last.
            pub fn decides(&self, path: &Path, aspect: Aspect) -> bool {
                match self { $(Self::$variant(action) => action.decides(path, aspect),)* }
            }

            /// Looks whether somebody else changed what it did.
            ///
            /// # Errors
            /// As [`Action::apply`].
            pub fn look_for_conflicts(&self, scan: &mut Scan<'_>, captured: &str) -> Result<()> {
                match self { $(Self::$variant(action) => action.look_for_conflicts(scan, &from_journal(captured)?),)* }
            }
        }
    };
}

actions! {
    /// Remembers files that other programs overwrite during the run.
    "keep-files" => KeepFiles(keep_files::KeepFiles),
    /// A system group.
    "create-group" => CreateGroup(create_group::CreateGroup),
    /// A system user.
    "create-user" => CreateUser(create_user::CreateUser),
    /// A user or a group of a Mac's directory.
    "create-record" => CreateRecord(create_record::CreateRecord),
    /// A line in `/etc/subuid` or `/etc/subgid`.
    "subid-line" => SubidLine(subid_line::SubidLine),
    /// A directory.
    "create-directory" => CreateDirectory(create_directory::CreateDirectory),
    /// A binary archive of Nix is fetched, and its digest compared.
    "fetch-archive" => FetchArchive(fetch_archive::FetchArchive),
    /// The archive's store paths come into the store.
    "unpack-archive" => UnpackArchive(unpack_archive::UnpackArchive),
    /// Nix's database gets to know them.
    "register-paths" => RegisterPaths(register_paths::RegisterPaths),
    /// The archive's Nix comes into a profile.
    "install-profile" => InstallProfile(install_profile::InstallProfile),
    /// The fetched archive is removed.
    "forget-archive" => ForgetArchive(forget_archive::ForgetArchive),
    /// A copy of one of root's files in another user's home.
    "copy-into-home" => CopyIntoHome(copy_into_home::CopyIntoHome),
    /// A file of root's that a group may read.
    "share-file" => ShareFile(share_file::ShareFile),
    /// Lines of somebody else's file.
    "replace-lines" => ReplaceLines(replace_lines::ReplaceLines),
    /// A copy of a program.
    "install-program" => InstallProgram(install_program::InstallProgram),
    /// A file with a given text.
    "write-file" => WriteFile(write_file::WriteFile),
    /// A symbolic link.
    "put-symlink" => PutSymlink(put_symlink::PutSymlink),
    /// A link to a socket that launchd makes.
    "link-socket" => LinkSocket(link_socket::LinkSocket),
    /// An empty file for what a job says.
    "create-log" => CreateLog(create_log::CreateLog),
    /// Time Machine passes a place over.
    "exclude-from-backup" => ExcludeFromBackup(exclude_from_backup::ExcludeFromBackup),
    /// A marked block at the end of a file.
    "append-block" => AppendBlock(append_block::AppendBlock),
    /// systemd reads its units anew.
    "reload-units" => ReloadUnits(reload_units::ReloadUnits),
    /// Units are stopped, and what they left running ends.
    "stop-units" => StopUnits(stop_units::StopUnits),
    /// launchd's jobs are unloaded, and what they left running ends.
    "stop-jobs" => StopJobs(stop_jobs::StopJobs),
    /// launchd's jobs are loaded.
    "start-jobs" => StartJobs(start_jobs::StartJobs),
    /// launchd may start a job, or may not, also after a restart.
    "switch-job" => SwitchJob(switch_job::SwitchJob),
    /// The same as `keep-stopped` on a Mac.
    "keep-jobs-stopped" => KeepJobsStopped(keep_jobs_stopped::KeepJobsStopped),
    /// Nothing of Nix runs, in either direction.
    "keep-stopped" => KeepStopped(keep_stopped::KeepStopped),
    /// Nix's volume is mounted.
    "need-volume" => NeedVolume(need_volume::NeedVolume),
    /// Nobody has a file of the store open for writing.
    "no-writers" => NoWriters(no_writers::NoWriters),
    /// Units are started.
    "start-units" => StartUnits(start_units::StartUnits),
    /// Nix's database is checked, its log folded in, and a copy kept.
    "back-up-database" => BackUpDatabase(database::BackUpDatabase),
    /// Nix's database is opened for writing and checked as its new owner.
    "hand-over-database" => HandOverDatabase(database::HandOverDatabase),
    /// Owner and mode of one path.
    "set-owner" => SetOwner(set_owner::SetOwner),
    /// An entry in the access control list of one path.
    "acl-entry" => AclEntry(acl_entry::AclEntry),
    /// The kernel knows an AppArmor profile.
    "load-apparmor-profile" => LoadApparmorProfile(load_apparmor_profile::LoadApparmorProfile),
    /// Owner of everything below a directory.
    "reown" => Reown(reown::Reown),
    /// The finished state is proved on the live machine.
    "verify" => Verify(verify::Verify),
    /// A file or link goes.
    "remove-file" => RemoveFile(remove_file::RemoveFile),
    /// An empty directory goes.
    "remove-directory" => RemoveDirectory(remove_directory::RemoveDirectory),
    /// An installer's block in a shell's file goes.
    "remove-block" => RemoveBlock(remove_block::RemoveBlock),
    /// An installer's block in a shell's file gives way to ours.
    "replace-block" => ReplaceBlock(replace_block::ReplaceBlock),
    /// Users and groups go.
    "remove-accounts" => RemoveAccounts(remove_accounts::RemoveAccounts),
    /// Lines of somebody else's file go.
    "remove-lines" => RemoveLines(remove_lines::RemoveLines),
    /// Users and groups of a Mac's directory go.
    "remove-records" => RemoveRecords(remove_records::RemoveRecords),
    /// Packages of the distribution go.
    "purge-packages" => PurgePackages(purge_packages::PurgePackages),
    /// What Nix's commands left in a home goes.
    "purge-home" => PurgeHome(purge_home::PurgeHome),
    /// A directory goes with all that is in it.
    "delete-tree" => DeleteTree(delete_tree::DeleteTree),
    /// A line in somebody else's file.
    "add-line" => AddLine(add_line::AddLine),
    /// A directory in a Mac's root directory.
    "make-mount-point" => MakeMountPoint(make_mount_point::MakeMountPoint),
    /// A volume of APFS.
    "create-volume" => CreateVolume(create_volume::CreateVolume),
    /// A file that names a volume.
    "write-for-volume" => WriteForVolume(write_for_volume::WriteForVolume),
    /// launchd mounts a volume.
    "mount-volume" => MountVolume(mount_volume::MountVolume),
    /// A volume of APFS goes with all that is on it.
    "delete-volume" => DeleteVolume(delete_volume::DeleteVolume),
}

/// What an undoing of something irrevocable says. The engine refuses to come this far.
fn irrevocable(what: &str) -> Result<()> {
    bail!("this cannot be undone once it has begun ({what}): nix-unroot resume finishes it")
}

pub use added_paths::{COMMAND as ADDED_PATHS_COMMAND, child_main as added_paths_child_main};
pub use database::child_main as database_child_main;
pub use install_profile::{COMMAND as PROFILE_COMMAND, child_main as profile_child_main};

fn to_journal(before: &impl Serialize) -> Result<String> {
    serde_json::to_string(before).context("cannot write down what was there")
}

fn from_journal<T: DeserializeOwned>(captured: &str) -> Result<T> {
    serde_json::from_str(captured).context("the journal's record of what was there is not readable")
}

/// How long a child of another user's may take for what takes moments, when it reads what that user wrote and could make it endless.
const CHILD_TIME: Duration = Duration::from_secs(5 * 60);

/// A path for messages.
fn show(path: &Path) -> String {
    text::path(path)
}

/// The uid of `user`, found by name (NSS included; on a Mac, in its local directory).
fn uid_of(user: &str) -> Result<u32> {
    let found = match (user, macos::is_here()) {
        ("root", _) => Some(0),
        (_, true) => directory::uid_of(user)?,
        (_, false) => users::get_user_by_name(user).map(|user| user.uid()),
    };
    found.with_context(|| format!("there is no user {user:?}"))
}

/// The gid of `group`, found in the same way. Root's group is called `root` in plans also where it has another name (`wheel` on a Mac).
fn gid_of(group: &str) -> Result<u32> {
    let found = match (group, macos::is_here()) {
        ("root", _) => Some(0),
        (_, true) => directory::gid_of(group)?,
        (_, false) => users::get_group_by_name(group).map(|group| group.gid()),
    };
    found.with_context(|| format!("there is no group {group:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not only for its time: a signal ends a child of another user's, too.
    #[test]
    fn a_child_is_ended_with_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let host = test_host::host(dir.path());
        let cancelled = host.limits(CHILD_TIME).cancelled;
        assert!(cancelled.is_some_and(|flag| std::ptr::eq(flag, host.cancelled)));
    }
}

#[cfg(test)]
mod test_host {
    use super::conflict::{Choice, Conflict, Keep};
    use super::*;

    /// An observer that says nothing.
    pub struct Silent;

    impl Observer for Silent {
        fn note(&self, _: &str) {}
        fn advance(&self, _: u64, _: u64, _: &str) {}
    }

    /// The conflicts that a scan of this step alone finds.
    pub fn conflicts<A: Act>(dir: &Path, action: &A, before: &A::Before) -> Vec<Conflict> {
        let host = host(dir);
        let mut scan = Scan::new(&host);
        action.look_for_conflicts(&mut scan, before).unwrap();
        scan.finish().unwrap().0
    }

    /// A host on which this was chosen for that conflict.
    pub fn chosen(dir: &Path, conflict: &Conflict, keep: Keep) -> Host<'static> {
        let mut host = host(dir);
        let choice = Choice { path: conflict.path.clone(), digest: conflict.digest.clone(), keep };
        host.choices.add(&host.backups, vec![choice]).unwrap();
        assert_eq!(Choices::load(&host.backups).unwrap(), host.choices, "it is written down");
        host
    }

    /// A host with its backups below `dir`.
    pub fn host(dir: &Path) -> Host<'static> {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Host {
            backups: dir.join("backups"),
            observer: &Silent,
            cancelled: &NEVER,
            choices: Choices::default(),
        }
    }
}
