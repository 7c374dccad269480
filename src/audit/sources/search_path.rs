//! Where root looks for programs, in every context, and what lies there.

use std::path::{Path, PathBuf};

use super::super::Danger::{High, Low, Medium};
use super::super::Fix;
use super::{Found, Scene, Source, absolute};
use crate::facts::startup_files;

pub const SOURCES: &[Source] = &[
    Source {
        key: "search-path",
        danger: Medium,
        trigger: "root looks for programs there: whoever can write there decides what a command is",
        remedy: "take the directory out of root's PATH there, or put it last",
        copies: false,
        find: paths,
    },
    Source {
        key: "program",
        danger: Medium,
        trigger: "root runs it when it calls the command by its name",
        remedy: "remove it, or install the program outside /nix; people can have /nix in their own PATH",
        copies: false,
        find: programs,
    },
    Source {
        key: "root-profile",
        danger: Low,
        trigger: "root has a profile of its own, and runs its programs when it calls them by path, or has them in PATH",
        remedy: "install what root needs from the distribution, and empty the profile (nix-env -e '*')",
        copies: false,
        find: |_| ["/root/.nix-profile/bin", "/root/.local/state/nix/profile/bin"].map(Found::name).into(),
    },
];

/// In every context's `PATH`, one way or another.
const DEFAULT: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Files in which a variable, or a word of a rule, sets a path; with the words that do.
const FILES: [(&str, &[&str]); 8] = [
    ("/etc/environment", &["PATH="]),
    ("/etc/login.defs", &["PATH="]),
    ("/etc/default/su", &["PATH="]),
    ("/etc/security/pam_env.conf", &["DEFAULT=", "OVERRIDE="]),
    ("/etc/sudoers", &["secure_path=", "PATH="]),
    ("/etc/doas.conf", &["PATH="]),
    ("/etc/crontab", &["PATH="]),
    ("/etc/anacrontab", &["PATH="]),
];
const DIRECTORIES: [(&str, &[&str]); 4] = [
    ("/etc/sudoers.d", &["secure_path=", "PATH="]),
    ("/etc/cron.d", &["PATH="]),
    ("/var/spool/cron/crontabs", &["PATH="]),
    ("/etc/systemd/system.conf.d", &["PATH="]),
];
/// The user managers' environment; root has one too (environment.d(5)).
const ENVIRONMENT: [&str; 5] = [
    "/usr/lib/environment.d",
    "/usr/local/lib/environment.d",
    "/run/environment.d",
    "/etc/environment.d",
    "/root/.config/environment.d",
];

fn paths(scene: &Scene<'_>) -> Vec<Found> {
    let mut found: Vec<_> =
        DEFAULT.iter().map(|path| Found { danger: Some(High), ..Found::name(*path) }).collect();
    let files = FILES.iter().map(|(path, words)| (PathBuf::from(path), *words));
    let directories = DIRECTORIES
        .iter()
        .flat_map(|(path, words)| scene.reader.list(path).into_iter().map(move |file| (file, *words)));
    let startup = startup_files(scene.reader)
        .into_iter()
        .map(|file| (file, &["PATH=", "PATH", "fish_add_path"] as &[&str]));
    let manager = [(PathBuf::from("/etc/systemd/system.conf"), &["PATH="] as &[&str])];
    for (file, words) in files.chain(directories).chain(startup).chain(manager) {
        let code = scene.code(&file).unwrap_or_default();
        let lines = code.lines().filter(|line| words.iter().any(|word| squeezed(line).contains(word)));
        for line in lines {
            found.extend(elements(line).map(|name| Found::name(name).by(&file)));
        }
    }
    found.extend(user_manager(scene));
    found
}

/// `secure_path = "..."` as `secure_path="..."`.
fn squeezed(line: &str) -> String {
    line.replace(" =", "=").replace("= ", "=")
}

/// The directories that a line with a path names.
fn elements(line: &str) -> impl Iterator<Item = PathBuf> {
    line.split(|c: char| c.is_whitespace() || ":=\"';,".contains(c))
        .filter_map(absolute)
        .filter(|path| path.ends_with("bin") || path.ends_with("sbin"))
}

/// Files apply in the order of their names, whatever directory they lie in; one that sets the variable without its old value forgets
/// those before.
fn user_manager(scene: &Scene<'_>) -> Vec<Found> {
    let mut files: Vec<_> = ENVIRONMENT.iter().flat_map(|path| scene.reader.list(path)).collect();
    files.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "conf")) {
        let code = scene.code(file).unwrap_or_default();
        for line in code.lines().filter_map(|line| line.trim().strip_prefix("PATH=")) {
            if !line.contains("$PATH") && !line.contains("${PATH") {
                found.clear();
            }
            let guard = || Some(Fix::UserManagerPath);
            found.extend(elements(line).map(|name| Found {
                guard: guard(),
                danger: Some(Low),
                ..Found::name(name).by(file)
            }));
        }
    }
    found
}

/// What lies in the directories where everybody's programs are; other names of the same directory (a merged `/usr`) are passed over.
fn programs(scene: &Scene<'_>) -> Vec<Found> {
    let real = |path: &Path| scene.reader.machine.real(path).is_ok_and(|real| real == path);
    let directories = DEFAULT.iter().filter(|path| real(Path::new(path)));
    directories.flat_map(|path| scene.reader.list(path)).map(Found::name).collect()
}
