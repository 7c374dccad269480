//! The facts themselves: the document of `inspect --json`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::types::{NixVersion, StorePath, SubidEntry, SubidRange, UnitName};

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

/// The operating system, from `/etc/os-release` and the kernel.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Os {
    /// `linux` or `macos`.
    pub family: String,
    /// `ID=` of os-release, `debian`.
    pub id: String,
    /// `PRETTY_NAME=` of os-release.
    pub name: String,
    /// `uname -r`.
    pub kernel: String,
    /// As in a Nix system name: `x86_64`, `aarch64`.
    pub arch: String,
    /// Set when `systemd-detect-virt`-like marks say that this is a container: `systemd-nspawn`, `docker`, `lxc`.
    pub container: Option<String>,
}

/// What runs as process 1.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Init {
    /// systemd, with its version number, when `/run/systemd/system` exists.
    Systemd {
        /// `systemctl --version`; `None` when systemctl did not answer.
        version: Option<u32>,
    },
    /// launchd.
    Launchd,
    /// Something else, by the name of process 1.
    Other {
        /// `/proc/1/comm`.
        name: String,
    },
}

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

/// A unit.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Unit {
    /// Its name.
    pub name: UnitName,
    /// The file that systemd reads, `FragmentPath`; `None` for a unit without one.
    pub fragment: Option<PathBuf>,
    /// Where that file really lies, after links.
    pub real_fragment: Option<PathBuf>,
    /// Drop-ins that apply, in order, with their contents.
    pub drop_ins: Vec<DropIn>,
    /// `UnitFileState`: `enabled`, `linked`, `static`, `masked`, ...
    pub file_state: String,
    /// `ActiveState`: `active`, `inactive`, `failed`, ...
    pub active_state: String,
    /// `User=`, when set.
    pub user: Option<String>,
    /// `AmbientCapabilities=`, when set: the rights of root that a service with a user of its own has.
    pub capabilities: Option<String>,
    /// The program of the first `ExecStart=`, for a service.
    pub exec_start: Option<PathBuf>,
    /// `Listen=` addresses, for a socket: paths of stream sockets.
    pub listen: Vec<PathBuf>,
    /// `SocketMode=`, when set: permission bits in octal.
    pub socket_mode: Option<String>,
    /// `SocketGroup=`, when set.
    pub socket_group: Option<String>,
}

/// A drop-in file.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct DropIn {
    /// Where it lies.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
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

/// A command that root runs by itself and that calls Nix, or a service that runs such commands for others.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct RootJob {
    /// The unit, crontab or script.
    pub path: PathBuf,
    /// The command.
    pub command: String,
}

/// Mandatory access control.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct AccessControl {
    /// SELinux.
    pub selinux: SeLinux,
    /// Whether AppArmor is on.
    pub apparmor: bool,
    /// Its profiles that name Nix.
    pub apparmor_profiles: Vec<PathBuf>,
}

/// How SELinux stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeLinux {
    /// Not there.
    Off,
    /// Logs what it would deny.
    Permissive,
    /// Denies.
    Enforcing,
}

/// Ids of somebody whom `/etc/passwd`, `/etc/group` and the subid files do not know.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct ForeignIds {
    /// Which.
    pub range: SubidRange,
    /// Whose: `the account ldap-user`, `a container (pid 77)`.
    pub holder: String,
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

/// A mount at or below `/nix`, or the one that `/nix/store` lies on.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Mount {
    /// Mount point.
    pub path: PathBuf,
    /// File system type: `ext4`, `nfs4`, ...
    pub fs_type: String,
    /// Source.
    pub source: String,
    /// `ro`
    pub read_only: bool,
    /// `noexec`
    pub noexec: bool,
    /// `nosuid`
    pub nosuid: bool,
    /// A network file system.
    pub network: bool,
    /// Mounted with mapped ids.
    pub idmapped: bool,
    /// Whether `/nix/store` lies on it.
    pub holds_store: bool,
}

/// User namespaces.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct UserNamespaces {
    /// `user.max_user_namespaces`; `None` when the kernel has no such setting.
    pub max: Option<u64>,
    /// `kernel.unprivileged_userns_clone` (Debian's kernels and others): false is 0.
    pub unprivileged_clone: Option<bool>,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1.
    pub apparmor_restricted: bool,
    /// `apparmor_parser` is installed, which loads profiles.
    pub apparmor_parser: bool,
    /// The live probe: a process made one, and wrote its map. `Err` holds the system's reason.
    pub probe: Result<(), String>,
}

/// A local account, passwd(5).
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell.
    pub shell: PathBuf,
}

/// A local group, group(5).
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Group {
    /// Name.
    pub name: String,
    /// Group id.
    pub gid: u32,
    /// Names in its member list; those whose primary group it is are not among them.
    pub members: Vec<String>,
}

/// Owner and mode of a path.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct PathOwner {
    /// The path.
    pub path: PathBuf,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// Something that could not be read.
#[derive(Clone, Debug, PartialEq, JsonSchema, Serialize, Deserialize)]
pub struct Unread {
    /// What: a path, or a command.
    pub what: String,
    /// Why: `permission denied (run as root to see it)`.
    pub why: String,
}
