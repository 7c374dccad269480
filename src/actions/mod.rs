//! What a plan can do: each action knows whether it is already so, what to remember, how to do it and how to undo it.
//!
//! Adding an action is adding a file and a line in the list below. Rules for all of them:
//!
//! - [`Act::capture`] reads and never writes; what it returns is durable before [`Act::apply`] is called.
//! - `apply` and `undo` may be killed at any instant and are then called again with the same captured state: they
//!   must lead to the same end from wherever they stopped.
//! - `undo` gives back what was captured, and is right also when `apply` never began.

mod account_debris;
mod append_block;
mod create_directory;
mod create_group;
mod create_user;
mod database;
mod drain;
mod edit;
mod file_state;
mod install_program;
mod keep_files;
mod keep_stopped;
mod put_symlink;
mod reload_units;
mod reown;
mod set_owner;
mod start_units;
mod stop_units;
mod subid_line;
mod verify;
mod write_file;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What an action may use besides its own parameters.
pub struct Host<'a> {
    /// A directory of this run, root's alone, for what is too large for the journal.
    pub backups: PathBuf,
    /// Where progress is told.
    pub observer: &'a dyn Observer,
    /// Set when the run is to stop: long actions look at it and return an error.
    pub cancelled: &'a AtomicBool,
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
}

macro_rules! actions {
    ($($(#[$doc:meta])* $name:literal => $variant:ident($type:ty),)*) => {
        /// An action with its parameters, as it stands in a plan.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// A line in `/etc/subuid` or `/etc/subgid`.
    "subid-line" => SubidLine(subid_line::SubidLine),
    /// A directory.
    "create-directory" => CreateDirectory(create_directory::CreateDirectory),
    /// A copy of a program.
    "install-program" => InstallProgram(install_program::InstallProgram),
    /// A file with a given text.
    "write-file" => WriteFile(write_file::WriteFile),
    /// A symbolic link.
    "put-symlink" => PutSymlink(put_symlink::PutSymlink),
    /// A marked block at the end of a file.
    "append-block" => AppendBlock(append_block::AppendBlock),
    /// systemd reads its units anew.
    "reload-units" => ReloadUnits(reload_units::ReloadUnits),
    /// Units are stopped, and what they left running ends.
    "stop-units" => StopUnits(stop_units::StopUnits),
    /// Nothing of Nix runs, in either direction.
    "keep-stopped" => KeepStopped(keep_stopped::KeepStopped),
    /// Units are started.
    "start-units" => StartUnits(start_units::StartUnits),
    /// Nix's database is checked, its log folded in, and a copy kept.
    "back-up-database" => BackUpDatabase(database::BackUpDatabase),
    /// Nix's database is opened for writing and checked as its new owner.
    "hand-over-database" => HandOverDatabase(database::HandOverDatabase),
    /// Owner and mode of one path.
    "set-owner" => SetOwner(set_owner::SetOwner),
    /// Owner of everything below a directory.
    "reown" => Reown(reown::Reown),
    /// The finished state is proved on the live machine.
    "verify" => Verify(verify::Verify),
}

pub use database::child_main as database_child_main;

fn to_journal(before: &impl Serialize) -> Result<String> {
    serde_json::to_string(before).context("cannot write down what was there")
}

fn from_journal<T: DeserializeOwned>(captured: &str) -> Result<T> {
    serde_json::from_str(captured).context("the journal's record of what was there is not readable")
}

/// A name as a path's display, for messages.
fn show(path: &Path) -> std::path::Display<'_> {
    path.display()
}

/// The uid of `user`, found by name (NSS included).
fn uid_of(user: &str) -> Result<u32> {
    users::get_user_by_name(user).map(|user| user.uid()).with_context(|| format!("there is no user {user:?}"))
}

/// The gid of `group`, found by name (NSS included).
fn gid_of(group: &str) -> Result<u32> {
    users::get_group_by_name(group)
        .map(|group| group.gid())
        .with_context(|| format!("there is no group {group:?}"))
}

#[cfg(test)]
mod test_host {
    use super::*;

    /// An observer that says nothing.
    pub struct Silent;

    impl Observer for Silent {
        fn note(&self, _: &str) {}
        fn advance(&self, _: u64, _: u64, _: &str) {}
    }

    /// A host with its backups below `dir`.
    pub fn host(dir: &Path) -> Host<'static> {
        static NEVER: AtomicBool = AtomicBool::new(false);
        Host { backups: dir.join("backups"), observer: &Silent, cancelled: &NEVER }
    }
}
