//! The facts themselves: the document of `inspect --json`.

mod machine;
mod nix;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use machine::*;
pub use nix::*;

use crate::types::SubidEntry;

/// All that is known of a machine. Serialised, it is the document of `inspect --json`.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Facts {
    /// The operating system.
    pub os: Os,
    /// The init system.
    pub init: Init,
    /// Who put Nix here.
    pub flavour: Flavour,
    /// Of an installation whose store a person owns: that person.
    pub single_user: Option<SingleUser>,
    /// Every Nix found, the one that the daemon runs first.
    pub nix: Vec<NixBinary>,
    /// `/nix/store`.
    pub store: Option<Store>,
    /// The database below `/nix/var/nix/db`.
    pub database: Option<Database>,
    /// Build users and their group.
    pub build_users: BuildUsers,
    /// Units of Nix, ours and others, in the order of their names.
    pub units: Vec<Unit>,
    /// `nix.conf` and what it includes, in the order Nix reads them.
    pub nix_conf: Vec<ConfFile>,
    /// Files that the daemon reads or runs, today with root's rights.
    pub daemon_files: Vec<DaemonFile>,
    /// Remote builders.
    pub builders: Vec<Builder>,
    /// What root's timers, services and crontabs do with Nix.
    pub root_jobs: Vec<RootJob>,
    /// SELinux and AppArmor.
    pub access_control: AccessControl,
    /// Ids that are in use although no local file says so.
    pub foreign_ids: Vec<ForeignIds>,
    /// Files that make shells see Nix.
    pub shell_snippets: Vec<ShellSnippet>,
    /// Processes of Nix that run now.
    pub processes: Vec<NixProcess>,
    /// Mounts at and below `/nix`.
    pub mounts: Vec<Mount>,
    /// What the kernel says of user namespaces.
    pub user_namespaces: UserNamespaces,
    /// `fs.protected_hardlinks` is not 0: nobody makes a hard link to a file that is not his and that he cannot write. `None` when
    /// the kernel does not say.
    pub protected_hardlinks: Option<bool>,
    /// `/etc/subuid`.
    pub subuid: Vec<SubidEntry>,
    /// `/etc/subgid`.
    pub subgid: Vec<SubidEntry>,
    /// Paths with owner and mode that a plan needs, keyed by absolute path, only those that exist.
    pub owners: Vec<PathOwner>,
    /// Local accounts, in the order of `/etc/passwd`.
    pub users: Vec<Account>,
    /// Local groups, in the order of `/etc/group`.
    pub groups: Vec<Group>,
    /// Directories that a run has to write to, on file systems that are mounted read-only.
    pub read_only: Vec<PathBuf>,
    /// Bytes free, for root, on the file system that holds this tool's journal and backups; `None` when it does not say.
    pub backup_free_bytes: Option<u64>,
    /// What only macOS has; `None` elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<super::macos::Mac>,
    /// What could not be read, and why.
    pub unread: Vec<Unread>,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Unread {
    /// What: a path, or a command.
    pub what: String,
    /// Why: `permission denied (run as root to see it)`.
    pub why: String,
}
