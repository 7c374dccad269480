//! Files that root's programs read as configuration, and programs that those name.

use std::path::{Path, PathBuf};

use super::super::Danger::High;
use super::units::directories;
use super::{Found, Scene, Source};
use crate::facts::nix_paths_named;

pub const SOURCES: &[Source] = &[
    Source {
        key: "policy-file",
        danger: High,
        trigger: "a program of root's reads it as configuration, at boot, at a change of packages or when it is asked",
        remedy: "replace the link by a file of root's, or remove it",
        copies: true,
        find: files,
    },
    Source {
        key: "policy-program",
        danger: High,
        trigger: "a program of root's is told to run it, or to load it",
        remedy: "name a program outside /nix, or take the line out",
        copies: false,
        find: named,
    },
    Source {
        key: "cron-job",
        danger: High,
        trigger: "cron or a timer runs it as root",
        remedy: "name a program outside /nix, run it as another user, or use nix-unroot's own units as an example of both",
        copies: false,
        find: cron,
    },
];

/// Directories of configuration, with whether the programs that a file names are run by root.
const DIRECTORIES: [(&str, bool); 40] = [
    ("/etc/systemd/system", false),
    ("/etc/tmpfiles.d", false),
    ("/usr/lib/tmpfiles.d", false),
    ("/etc/sysusers.d", false),
    ("/usr/lib/sysusers.d", false),
    ("/etc/sysctl.d", true),
    ("/usr/lib/sysctl.d", true),
    ("/etc/modules-load.d", true),
    ("/etc/modprobe.d", true),
    ("/etc/binfmt.d", true),
    ("/usr/lib/binfmt.d", true),
    ("/etc/udev/rules.d", true),
    ("/usr/lib/udev/rules.d", true),
    ("/etc/polkit-1/rules.d", true),
    ("/etc/polkit-1/actions", true),
    ("/usr/share/polkit-1/rules.d", true),
    ("/usr/share/polkit-1/actions", true),
    ("/etc/dbus-1/system.d", false),
    ("/etc/dbus-1/system-services", true),
    ("/usr/share/dbus-1/system.d", false),
    ("/usr/share/dbus-1/system-services", true),
    ("/etc/NetworkManager/dispatcher.d", true),
    ("/etc/apt/apt.conf.d", true),
    ("/etc/dpkg/dpkg.cfg.d", true),
    ("/etc/pacman.d/hooks", true),
    ("/etc/dnf/plugins", true),
    ("/etc/initramfs-tools/hooks", true),
    ("/etc/initramfs-tools/scripts", true),
    ("/etc/dracut.conf.d", true),
    ("/etc/kernel/install.d", true),
    ("/etc/kernel/postinst.d", true),
    ("/etc/logrotate.d", true),
    ("/etc/update-motd.d", true),
    ("/etc/ssh/sshd_config.d", true),
    ("/etc/request-key.d", true),
    ("/etc/rsyslog.d", true),
    ("/etc/ca-certificates/update.d", true),
    ("/etc/sudoers.d", false),
    ("/etc/security", true),
    ("/etc/pam.d", true),
];
/// Single files, as above.
const FILES: [(&str, bool); 22] = [
    ("/etc/sysctl.conf", true),
    ("/etc/modules", true),
    ("/etc/ssh/sshd_config", true),
    ("/etc/request-key.conf", true),
    ("/etc/nsswitch.conf", false),
    ("/etc/fstab", false),
    ("/etc/sudoers", false),
    ("/etc/doas.conf", false),
    ("/etc/passwd", false),
    ("/etc/shadow", false),
    ("/etc/group", false),
    ("/etc/gshadow", false),
    ("/etc/subuid", false),
    ("/etc/subgid", false),
    ("/etc/login.defs", false),
    ("/etc/nix/nix.conf", false),
    ("/etc/nix-unroot.toml", false),
    ("/var/lib/nix-unroot/journal.sqlite", false),
    ("/usr/local/libexec/nix-unroot/nix-daemon-gate", false),
    ("/usr/local/libexec/nix-unroot/nix-root-scan", false),
    ("/root/.config/nix/nix.conf", false),
    ("/root/.ssh/authorized_keys", false),
];
const CRONTABS: [&str; 5] = [
    "/etc/crontab",
    "/etc/anacrontab",
    "/var/spool/cron/crontabs/root",
    "/var/spool/cron/root",
    "/var/spool/at",
];
const CRON_DIRECTORIES: [&str; 5] =
    ["/etc/cron.d", "/etc/cron.hourly", "/etc/cron.daily", "/etc/cron.weekly", "/etc/cron.monthly"];

fn files(scene: &Scene<'_>) -> Vec<Found> {
    let mut found = directories(scene, &DIRECTORIES.map(|(path, _)| path));
    // Units are a source of their own.
    found.retain(|found| found.name.parent() != Some(Path::new("/etc/systemd/system")));
    found.extend(FILES.iter().map(|(path, _)| Found::name(*path)));
    found
}

fn named(scene: &Scene<'_>) -> Vec<Found> {
    let in_directories =
        DIRECTORIES.iter().filter(|(_, runs)| *runs).flat_map(|(path, _)| scene.reader.list(path));
    let files = FILES.iter().filter(|(_, runs)| *runs).map(|(path, _)| PathBuf::from(path));
    programs_in(scene, in_directories.chain(files))
}

/// What of `/nix` these files name.
fn programs_in(scene: &Scene<'_>, files: impl Iterator<Item = PathBuf>) -> Vec<Found> {
    files
        .filter(|file| scene.reader.machine.stat(file).is_ok_and(|found| found.is_file()))
        .flat_map(|file| {
            let code = scene.code(&file).unwrap_or_default();
            // A search path is another source.
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("PATH"));
            let names = nix_paths_named(&lines.collect::<Vec<_>>().join("\n"));
            names.into_iter().map(move |name| Found::name(name).by(&file))
        })
        .collect()
}

fn cron(scene: &Scene<'_>) -> Vec<Found> {
    let tables = CRONTABS.iter().map(PathBuf::from).filter(|path| scene.reader.machine.exists(path));
    let mut found: Vec<_> = tables.clone().map(Found::name).collect();
    found.extend(directories(scene, &CRON_DIRECTORIES));
    let files: Vec<_> = found.iter().map(|found| found.name.clone()).collect();
    found.extend(programs_in(scene, files.into_iter()));
    found
}
