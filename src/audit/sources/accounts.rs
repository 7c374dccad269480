//! Login shells, and rights that the Nix user has besides its own.

use std::path::{Path, PathBuf};

use super::super::Danger::{High, Low};
use super::{Found, Scene, Source};

pub const SOURCES: &[Source] = &[
    Source {
        key: "login-shell",
        danger: High,
        trigger: "it runs when root logs in, and at su and sudo -s",
        remedy: "give root a shell of the distribution: usermod --shell /bin/bash root",
        copies: false,
        find: shells,
    },
    Source {
        key: "shells-list",
        danger: Low,
        trigger: "people who may become root can choose it as their login shell",
        remedy: "take the line out of /etc/shells, or see to it that nobody with rights of root uses it",
        copies: false,
        find: list,
    },
    Source {
        key: "privileged-account",
        danger: High,
        trigger: "the account has rights of its own",
        remedy: "take the account out of the group or the rule; it needs none",
        copies: false,
        find: rights,
    },
];

/// Groups whose members are root, or can become it.
const GROUPS: [&str; 14] = [
    "root",
    "wheel",
    "sudo",
    "admin",
    "adm",
    "docker",
    "podman",
    "lxd",
    "incus-admin",
    "libvirt",
    "disk",
    "shadow",
    "kmem",
    "systemd-journal",
];

fn shells(scene: &Scene<'_>) -> Vec<Found> {
    let roots = scene.reader.accounts.users.iter().filter(|user| user.uid == 0);
    roots.map(|user| Found::name(&user.shell).by(Path::new("/etc/passwd"))).collect()
}

fn list(scene: &Scene<'_>) -> Vec<Found> {
    let code = scene.code(Path::new("/etc/shells")).unwrap_or_default();
    let lines = code.lines().map(str::trim).filter(|line| line.starts_with('/'));
    lines.map(|line| Found::name(line).by(Path::new("/etc/shells"))).collect()
}

/// Accounts of the subject in groups that lead to root, in rules of sudo and doas, or with a shell and keys to log in.
fn rights(scene: &Scene<'_>) -> Vec<Found> {
    let accounts = &scene.reader.accounts;
    let users: Vec<_> =
        accounts.users.iter().filter(|user| user.uid != 0 && scene.subject.has_uid(user.uid)).collect();
    let own: Vec<_> = accounts.groups.iter().filter(|group| scene.subject.has_gid(group.gid)).collect();
    let mut found = Vec::new();
    let mut hit = |file: &Path, why: String| {
        found.push(Found { direct: Some(why), ..Found::name(file) });
    };
    for group in accounts.groups.iter().filter(|group| GROUPS.contains(&group.name.as_str())) {
        for user in users.iter().filter(|user| user.gid == group.gid || group.members.contains(&user.name)) {
            hit(Path::new("/etc/group"), format!("{} is in the group {}", user.name, group.name));
        }
    }
    for user in &users {
        let shell = user.shell.file_name().unwrap_or_default();
        if shell != "nologin" && shell != "false" {
            hit(
                Path::new("/etc/passwd"),
                format!("{} has the login shell {}", user.name, user.shell.display()),
            );
        }
    }
    let mut rules: Vec<PathBuf> = ["/etc/sudoers", "/etc/doas.conf"].map(PathBuf::from).to_vec();
    rules.extend(scene.reader.list("/etc/sudoers.d"));
    for file in rules {
        let code = scene.code(&file).unwrap_or_default();
        for line in code.lines() {
            let names = users.iter().map(|user| user.name.as_str());
            let groups = own.iter().map(|group| group.name.as_str());
            let mut words = line.split(|c: char| c.is_whitespace() || ",=():%".contains(c));
            let mentioned: Vec<_> = names.chain(groups).collect();
            if words.any(|word| mentioned.contains(&word)) {
                hit(&file, format!("a rule names the account: {}", line.trim()));
            }
        }
    }
    found
}
