//! Files that only root can read and that a migration can let the Nix group read, when it is told to.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Options;
use crate::facts::{DaemonFile, Facts, FileKind};

/// Which kinds of files are to be shared with the Nix group. Each is a flag `--share-NAME`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// `nix.conf`, what it includes, and lists of builders.
    pub conf: bool,
    /// The netrc file.
    pub netrc: bool,
    /// Keys that sign.
    pub keys: bool,
    /// Certificates and their keys.
    pub certificates: bool,
    /// Keys that lines of builders name, and copies of what root's `.ssh` holds.
    pub ssh: bool,
    /// Copies of root's AWS credentials.
    pub aws: bool,
}

impl Share {
    /// The flag that shares files of this kind, and whether it is given; `None` for what is never shared.
    pub fn flag(self, kind: FileKind) -> Option<(&'static str, bool)> {
        Some(match kind {
            FileKind::Conf | FileKind::Machines => ("--share-conf", self.conf),
            FileKind::Netrc => ("--share-netrc", self.netrc),
            FileKind::SigningKey => ("--share-keys", self.keys),
            FileKind::Certificate => ("--share-certificates", self.certificates),
            FileKind::SshKey => ("--share-ssh", self.ssh),
            FileKind::Hook | FileKind::Plugin | FileKind::SandboxPath => return None,
        })
    }
}

/// Files that a migration gives the Nix group access to: where they really lie, in the order of their names.
pub fn shared(facts: &Facts, options: &Options) -> Vec<PathBuf> {
    let wanted = |file: &&DaemonFile| options.share.flag(file.kind).is_some_and(|(_, given)| given);
    let files = facts.daemon_files.iter().filter(wanted);
    let mut paths: Vec<_> = files
        .filter(|file| can_be_shared(file) && !nix_can_read(facts, options, file))
        .map(|file| file.real.clone())
        .collect();
    paths.sort();
    paths.dedup();
    paths
}

/// Names of the files below a directory of root's home that the daemon's home gets copies of.
pub fn copied(facts: &Facts, wanted: bool, directory: &Path) -> Vec<String> {
    let below = facts.owners.iter().filter(|owner| wanted && owner.path.parent() == Some(directory));
    below.filter_map(|owner| Some(owner.path.file_name()?.to_string_lossy().into_owned())).collect()
}

/// Another group's file stays that group's; one that a tool makes anew at every boot would be closed again; in a closed directory
/// the group's right is worth nothing.
pub(super) fn can_be_shared(file: &DaemonFile) -> bool {
    let made_anew = ["/run", "/nix", "/proc", "/dev"].iter().any(|place| file.real.starts_with(place));
    file.uid == 0 && file.gid == 0 && !file.directory && file.closed_directory.is_none() && !made_anew
}

/// As far as modes tell.
pub(super) fn nix_can_read(facts: &Facts, options: &Options, file: &DaemonFile) -> bool {
    let uid = facts.users.iter().find(|user| user.name == options.nix_user).map(|user| user.uid);
    let gid = facts.groups.iter().find(|group| group.name == options.nix_user).map(|group| group.gid);
    let bit = match file {
        file if Some(file.uid) == uid => 0o400,
        file if Some(file.gid) == gid => 0o040,
        _ => 0o004,
    };
    file.mode & bit != 0 && file.closed_directory.is_none()
}
