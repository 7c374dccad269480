//! What is known of the machine whatever installed Nix there.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::types::{SubidRange, UnitName};

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
