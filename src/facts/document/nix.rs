//! What is known of Nix: its programs, its store, what its daemon reads, and what runs.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::types::{NixVersion, StorePath};

/// The person who owns the store of a single-user installation.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct SingleUser {
    /// Owner of the store.
    pub uid: u32,
    /// Group of the store.
    pub gid: u32,
    /// Name of the account, when a local file has it.
    pub name: Option<String>,
    /// The person's own directories among profiles and GC roots, relative to `/nix/var/nix`, in the order of their names.
    pub own_directories: Vec<PathBuf>,
    /// The store path of the Nix that the person uses.
    pub nix: Option<StorePath>,
}

/// Who installed Nix. The marks are those of `research/installers.md` section 3.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Flavour {
    /// No Nix here.
    None,
    /// The official script, multi-user.
    OfficialMultiUser,
    /// The official script, single-user: a person owns the store.
    OfficialSingleUser {
        /// That person's uid.
        owner: u32,
    },
    /// NixOS/nix-installer.
    NixInstaller,
    /// DeterminateSystems/nix-installer with upstream Nix.
    DeterminateUpstream,
    /// Determinate Nix (`determinate-nixd`).
    DeterminateNix,
    /// Lix.
    Lix,
    /// A distribution's packages.
    Packages {
        /// `debian`, `fedora`, `arch`.
        distribution: String,
        /// The packages that own the daemon and its units, with their versions.
        packages: Vec<String>,
    },
    /// NixOS.
    NixOs,
    /// nix-darwin.
    NixDarwin,
    /// system-manager.
    SystemManager,
    /// Already unprivileged by this tool.
    Unprivileged,
    /// Unprivileged by other means (a unit with `User=`, nix-nswrapper).
    UnprivilegedForeign,
    /// There is a store or a daemon, but no known mark.
    Unknown,
}

/// One Nix.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct NixBinary {
    /// Where `nix-daemon` (or, without one, `nix`) is found, before links are followed.
    pub path: PathBuf,
    /// Where it really lies.
    pub real_path: PathBuf,
    /// Its version, found without executing anything below `/nix` as root; `None` when that was not possible.
    pub version: Option<NixVersion>,
    /// Who provides it: `dpkg: nix-bin 2.34.8-1`, `/nix/var/nix/profiles/default`, `/usr/local`.
    pub provider: String,
    /// Whether the daemon's unit starts this one.
    pub runs_daemon: bool,
}

/// The store and the state directory.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Store {
    /// `/nix/store`.
    pub path: PathBuf,
    /// `/nix/var/nix`.
    pub state: PathBuf,
    /// Owner of the store directory.
    pub uid: u32,
    /// Group of the store directory.
    pub gid: u32,
    /// Its mode, the permission bits only.
    pub mode: u32,
    /// Bytes free on its file system for root.
    pub free_bytes: u64,
    /// Inodes used on its file system: an upper bound of what a re-own will visit.
    pub used_inodes: u64,
    /// Whether its file system has access control lists (acl(5)).
    pub access_lists: bool,
}

/// Nix's database.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Database {
    /// `/nix/var/nix/db/db.sqlite`.
    pub path: PathBuf,
    /// The number in `/nix/var/nix/db/schema` (10 for all Nix since 2.0).
    pub schema: Option<u32>,
    /// What `PRAGMA quick_check` says: `ok`, or the first complaint; `None` when it could not be read.
    pub integrity: Option<String>,
    /// Rows in `ValidPaths`; `None` when it could not be read.
    pub valid_paths: Option<u64>,
    /// Size of the database with its write-ahead log, in bytes.
    pub bytes: u64,
    /// Owner of the database file.
    pub uid: u32,
}

/// Build users, by the group that `build-users-group` names.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct BuildUsers {
    /// The group, when it exists.
    pub group: Option<String>,
    /// Its gid.
    pub gid: Option<u32>,
    /// Members, by name, with their uids.
    pub members: Vec<(String, u32)>,
}

/// A configuration file of Nix.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct ConfFile {
    /// Where it lies.
    pub path: PathBuf,
    /// The file that includes it; `None` for the first.
    pub included_by: Option<PathBuf>,
    /// Whether a missing file is allowed (`!include`).
    pub optional: bool,
    /// How many settings of the including file stand before the include.
    pub position: usize,
    /// Settings in order, as `(name, value)`; `None` when the file is missing or could not be read.
    pub settings: Option<Vec<(String, String)>>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// What a file is to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// `nix.conf`, or included by it.
    Conf,
    /// Passwords for downloads.
    Netrc,
    /// Signs what is built.
    SigningKey,
    /// A certificate, or the key to a client's certificate.
    Certificate,
    /// Opens a remote builder or store.
    SshKey,
    /// A list of remote builders.
    Machines,
    /// A program that the daemon starts.
    Hook,
    /// A library that the daemon loads.
    Plugin,
    /// Shown to builds.
    SandboxPath,
}

/// A file that the daemon reads or runs.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct DaemonFile {
    /// What it is.
    pub kind: FileKind,
    /// The setting or variable that names it.
    pub named_by: String,
    /// The name.
    pub path: PathBuf,
    /// Where it really lies, after links.
    pub real: PathBuf,
    /// Whether it is a directory.
    pub directory: bool,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// The outermost directory on the way to it that not everybody may enter.
    pub closed_directory: Option<PathBuf>,
}

/// A remote builder.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Builder {
    /// Its address.
    pub uri: String,
    /// The ssh key that its line names.
    pub key: Option<PathBuf>,
    /// The list that it stands in; `None` for `nix.conf` itself.
    pub list: Option<PathBuf>,
    /// Whether it is reached with ssh.
    pub over_ssh: bool,
}

/// A file that a shell reads and that mentions Nix.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct ShellSnippet {
    /// The file.
    pub path: PathBuf,
    /// Files below `/nix` that it sources or names.
    pub sources: Vec<PathBuf>,
    /// Whether root's shells read it.
    pub read_by_root: bool,
}

/// A running process of Nix.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct NixProcess {
    /// Process id.
    pub pid: i32,
    /// Effective uid.
    pub uid: u32,
    /// What it is.
    pub role: ProcessRole,
    /// Command line, shortened to 200 characters.
    pub command: String,
    /// Seconds since it started.
    pub age_seconds: u64,
}

/// What a process of Nix does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessRole {
    /// The daemon that listens.
    Daemon,
    /// A daemon's child that serves one connection.
    Worker,
    /// A builder: a process under a build user or an id of the subuid range.
    Build,
    /// A client: `nix`, `nix-build`, ...
    Client,
}
