//! Owners and modes of the paths that a plan changes or depends on.

use std::path::PathBuf;

use super::reader::Reader;
use super::{ConfFile, PathOwner, nix_conf};

/// The frame around Nix's files.
const FRAME: [&str; 17] = [
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
];

/// Files that only count because the daemon, as root, reads them.
const ROOTS_OWN: [&str; 7] = [
    "/root/.config/nix/nix.conf",
    "/root/.netrc",
    "/root/.aws/credentials",
    "/root/.aws/config",
    "/root/.ssh/id_rsa",
    "/root/.ssh/id_ecdsa",
    "/root/.ssh/id_ed25519",
];

/// Those that exist, by path. Links are not followed, except for files that settings name: there the file counts.
pub(crate) fn gather(reader: &Reader<'_>, conf: &[ConfFile]) -> Vec<PathOwner> {
    let below_state = reader.list("/nix/var/nix");
    let fixed = FRAME.iter().chain(&ROOTS_OWN).map(PathBuf::from);
    let included = conf.iter().skip(1).map(|file| file.path.clone());
    let named = nix_conf::files_named(conf).into_iter().map(|named| named.file).chain(included);
    let mut owners: Vec<_> = fixed.chain(below_state).filter_map(|path| reader.path_owner(path)).collect();
    owners.extend(named.filter_map(|path| reader.target_owner(path)));
    owners.sort_by(|a, b| a.path.cmp(&b.path));
    owners.dedup_by(|a, b| a.path == b.path);
    owners
}
