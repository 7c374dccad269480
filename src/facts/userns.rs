//! User namespaces: what the settings say, and whether one can really be made.

use std::path::Path;
use std::time::Duration;

use super::UserNamespaces;
use super::child::{NOBODY, PROBE_USERNS, ask};
use super::reader::Reader;
use crate::system::command::SAFE_PATH;

pub(crate) fn gather(reader: &Reader<'_>) -> UserNamespaces {
    let number = |path: &str| reader.text(path).and_then(|text| text.trim().parse::<u64>().ok());
    UserNamespaces {
        max: number("/proc/sys/user/max_user_namespaces"),
        unprivileged_clone: number("/proc/sys/kernel/unprivileged_userns_clone").map(|value| value != 0),
        apparmor_restricted: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1),
        apparmor_parser: SAFE_PATH
            .split(':')
            .any(|directory| reader.machine.exists(Path::new(directory).join("apparmor_parser"))),
        probe: probe(reader),
    }
}

/// Asks a child, because the namespace would stay with the process that made it. As root the child is `nobody`: root's
/// own success says nothing of a daemon that is not root.
fn probe(reader: &Reader<'_>) -> Result<(), String> {
    if !reader.machine.is_live() {
        return Err("not a running machine".to_owned());
    }
    ask(reader.machine.helper(), (NOBODY, NOBODY), &[PROBE_USERNS], Duration::from_secs(10))
}

/// What the child does: a user namespace, its map, and in it something that needs a capability. AppArmor's restriction
/// lets the first two pass and refuses the third.
#[cfg(target_os = "linux")]
pub(crate) fn probe_here() -> Result<(), String> {
    use nix::sched::{CloneFlags, unshare};
    use nix::unistd::{getegid, geteuid};
    let (uid, gid) = (geteuid(), getegid());
    let system = |doing: &'static str| move |error: nix::Error| format!("{doing}: {}", error.desc());
    let file = |name: &str, text: String| {
        let path = format!("/proc/self/{name}");
        std::fs::write(&path, text).map_err(|error| format!("writing {path}: {error}"))
    };
    unshare(CloneFlags::CLONE_NEWUSER).map_err(system("making a user namespace"))?;
    file("setgroups", "deny".to_owned())?;
    file("uid_map", format!("0 {uid} 1\n"))?;
    file("gid_map", format!("0 {gid} 1\n"))?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(system("making a mount namespace inside a user namespace"))
}

/// Only Linux has them.
#[cfg(not(target_os = "linux"))]
pub(crate) fn probe_here() -> Result<(), String> {
    Err("this kernel has no user namespaces".to_owned())
}
