//! Files and links outside `/nix`, and blocks in files of others.

use std::path::{Path, PathBuf};

use super::Remains;
use crate::facts::Machine;
use crate::platform::block::{copy_of, has_block};

/// Where the installers put their block (`PROFILE_TARGETS` of the official script, `PROFILE_TARGETS` and
/// `PROFILE_FISH_CONFD_SUFFIX` of nix-installer).
const SHELL_FILES: [&str; 11] = [
    "/etc/bashrc",
    "/etc/bash.bashrc",
    "/etc/profile.d/nix.sh",
    "/etc/profile.d/nix-daemon.sh",
    "/etc/zshrc",
    "/etc/zshenv",
    "/etc/zsh/zshrc",
    "/etc/zsh/zshenv",
    "/etc/fish/conf.d/nix.fish",
    "/usr/share/fish/vendor_conf.d/nix.fish",
    "/usr/local/etc/fish/conf.d/nix.fish",
];
/// Files that only an installer of Nix makes. `/etc/nix` may hold keys and lists of machines besides: those stay.
const OWN_FILES: [&str; 8] = [
    "/etc/nix/nix.conf",
    "/etc/nix/nix.custom.conf",
    "/etc/tmpfiles.d/nix-daemon.conf",
    "/etc/systemd/system/nix-daemon.service",
    "/etc/systemd/system/nix-daemon.socket",
    "/etc/systemd/system/determinate-nixd.socket",
    "/usr/local/bin/determinate-nixd",
    "/usr/share/selinux/packages/nix.pp",
];
/// Where links that lead into `/nix` are an installer's: systemd's own, and those of `nix-env` for everybody.
const LINK_DIRECTORIES: [&str; 9] = [
    "/etc/profile.d",
    "/etc/systemd/system",
    "/etc/systemd/system/multi-user.target.wants",
    "/etc/systemd/system/sockets.target.wants",
    "/etc/tmpfiles.d",
    "/etc/fish/conf.d",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/etc/bash_completion.d",
];
/// Drop-ins for units that are gone would wait for the next installation.
const DROP_IN_DIRECTORIES: [&str; 2] =
    ["/etc/systemd/system/nix-daemon.service.d", "/etc/systemd/system/nix-daemon.socket.d"];
/// Where nix-installer leaves `nix-installer-tmp.NUMBER` when it is killed while it edits a file.
const TEMPORARY_DIRECTORIES: [&str; 4] = ["/etc", "/etc/profile.d", "/etc/zsh", "/etc/nix"];

/// Adds what is there.
pub(super) fn find(machine: &Machine, remains: &mut Remains) {
    for path in SHELL_FILES.map(PathBuf::from) {
        let text = machine.read(&path).unwrap_or_default();
        if has_block(&text) || exists(machine, &copy_of(&path)) {
            remains.blocks.push(path);
        }
    }
    // A package's own files go with the package.
    let packaged = |path: &Path| !remains.packages.is_empty() && path.starts_with("/etc/nix");
    let own =
        OWN_FILES.map(PathBuf::from).into_iter().filter(|path| exists(machine, path) && !packaged(path));
    let mut files: Vec<_> = own.collect();
    for directory in LINK_DIRECTORIES.map(Path::new) {
        let links = list(machine, directory).into_iter().filter(|path| leads_to_nix(machine, path));
        let before = files.len();
        files.extend(links);
        // `systemctl enable` makes these, and an empty one means nothing.
        if files.len() > before && directory.extension().is_some_and(|extension| extension == "wants") {
            remains.directories.push(directory.to_owned());
        }
    }
    for directory in DROP_IN_DIRECTORIES.map(Path::new) {
        files.extend(list(machine, directory));
        if exists(machine, directory) {
            remains.directories.push(directory.to_owned());
        }
    }
    for directory in TEMPORARY_DIRECTORIES.map(Path::new) {
        let temporary = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("nix-installer-tmp."))
        };
        files.extend(list(machine, directory).into_iter().filter(temporary));
    }
    files.sort();
    files.dedup();
    if remains.packages.is_empty() && exists(machine, Path::new("/etc/nix")) {
        remains.directories.push("/etc/nix".into());
        for other in list(machine, Path::new("/etc/nix")).into_iter().filter(|path| !files.contains(path)) {
            remains.stays.push(format!("{}: not an installer's", other.display()));
        }
    }
    remains.files = files;
}

fn exists(machine: &Machine, path: &Path) -> bool {
    machine.lstat(path).is_ok()
}

fn list(machine: &Machine, directory: &Path) -> Vec<PathBuf> {
    machine.list(directory).unwrap_or_default().into_iter().map(|name| directory.join(name)).collect()
}

/// Whether a link's own target lies below `/nix`: it dangles once that is gone.
fn leads_to_nix(machine: &Machine, path: &Path) -> bool {
    machine.read_link(path).is_ok_and(|target| target.starts_with("/nix"))
}
