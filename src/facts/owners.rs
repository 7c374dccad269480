//! Owners and modes of the paths that a plan changes or depends on.

use std::path::PathBuf;

use super::reader::Reader;
use super::{DaemonFile, PathOwner};

/// The frame around Nix's files.
const FRAME: [&str; 21] = [
    "/nix",
    "/nix/store",
    "/nix/var",
    "/nix/var/log",
    "/nix/var/log/nix",
    "/nix/var/nix",
    "/nix/var/nix/profiles/per-user",
    "/nix/var/nix/gcroots/per-user",
    "/nix/var/nix/daemon-socket/socket",
    "/nix/var/nix/gc-roots-socket/socket",
    "/etc/nix",
    "/etc/nix/nix.conf",
    "/etc/tmpfiles.d/nix-daemon.conf",
    "/etc/bash.bashrc",
    "/etc/bashrc",
    "/etc/zsh/zshrc",
    "/etc/zshrc",
    "/nix/receipt.json",
    "/nix/nix-installer",
    "/dev/kvm",
    "/Library/Apple/usr/share/rosetta/rosetta",
];

/// Files that only count because the daemon, as root, reads them.
const ROOTS_OWN: [&str; 4] =
    ["/root/.config/nix/nix.conf", "/root/.netrc", "/root/.aws/credentials", "/root/.aws/config"];
/// What ssh, started by the daemon, finds there: names that begin so.
const SSH_DIRECTORY: &str = "/root/.ssh";
const SSH: [&str; 3] = ["id_", "known_hosts", "config"];

/// Those that exist, by path. Links are not followed, except for files that settings name: there the file counts.
pub(crate) fn gather(reader: &Reader<'_>, daemon_files: &[DaemonFile]) -> Vec<PathOwner> {
    let below_state = reader.list("/nix/var/nix");
    let fixed = FRAME.iter().chain(&ROOTS_OWN).map(PathBuf::from);
    let ssh = reader.list(SSH_DIRECTORY).into_iter().filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        SSH.iter().any(|start| name.starts_with(start))
    });
    let mut owners: Vec<_> =
        fixed.chain(below_state).chain(ssh).filter_map(|path| reader.path_owner(path)).collect();
    owners.extend(daemon_files.iter().filter_map(|file| reader.target_owner(&file.path)));
    owners.sort_by(|a, b| a.path.cmp(&b.path));
    owners.dedup_by(|a, b| a.path == b.path);
    owners
}
