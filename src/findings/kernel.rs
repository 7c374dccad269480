//! What the kernel and the init system must offer.

use super::Severity::{Blocker, Info};
use super::{Check, Options, Seen};
use crate::facts::{Facts, Flavour, Init, Unsandboxed};
use crate::system::command::SAFE_PATH;

pub(super) const CHECKS: &[Check] = &[
    Check {
        key: "no-systemd",
        severity: Blocker,
        title: "systemd is not what runs this machine",
        see: no_systemd,
    },
    Check {
        key: "userns-impossible",
        severity: Blocker,
        title: "no user namespace can be made here, and builds need one each",
        see: impossible,
    },
    Check {
        key: "userns-restricted",
        severity: Info,
        title: "user namespaces are restricted for processes without privileges; the gate gets an exception of its own",
        see: restricted,
    },
    Check {
        key: "apparmor-parser-missing",
        severity: Blocker,
        title: "AppArmor restricts user namespaces, and the program that could load an exception for the gate is missing",
        see: no_parser,
    },
    Check {
        key: "store-without-access-lists",
        severity: Blocker,
        title: "nix.conf lets builds run without a sandbox, and the store's file system cannot let them make their outputs",
        see: no_access_lists,
    },
    Check {
        key: "hard-links-unprotected",
        severity: Blocker,
        title: "anybody can make hard links to files that are root's alone, so root's files below /nix may not be Nix's",
        see: unprotected_links,
    },
];

fn no_systemd(facts: &Facts, options: &Options) -> Option<Seen> {
    let name = match &facts.init {
        // A Mac has a finding of its own.
        Init::Systemd { .. } | Init::Launchd => return None,
        // The units are written all the same, for a day with systemd.
        Init::Other { .. } if options.without_init || facts.flavour == Flavour::Unprivileged => return None,
        Init::Other { name } => name,
    };
    Some(
        Seen::new(format!("process 1 is {name}, and /run/systemd/system is not there")).remedy(
            "in a container, give --init none, and start the daemon yourself; else boot this machine with systemd (in WSL: \
             `systemd=true` below `[boot]` in /etc/wsl.conf)",
        ),
    )
}

fn impossible(facts: &Facts, options: &Options) -> Option<Seen> {
    if facts.mac.is_some() {
        return None;
    }
    let namespaces = &facts.user_namespaces;
    if namespaces.max == Some(0) {
        return Some(
            Seen::new("user.max_user_namespaces is 0")
                .remedy("allow them, and make that last in /etc/sysctl.d")
                .command(&["sysctl", "-w", "user.max_user_namespaces=63000"]),
        );
    }
    let reason = namespaces.probe.as_ref().err()?;
    // A setting that explains it has a remedy of its own, and the daemon's unit can hold a capability that the probe lacks.
    let remedy = if reason.contains("cannot run") {
        "make it possible for any user to execute this program, then look again"
    } else {
        "in a container, allow nested user namespaces (nspawn does by default; docker needs its seccomp profile relaxed)"
    };
    restricted(facts, options)
        .is_none()
        .then(|| Seen::new(format!("a process without privileges tried: {reason}")).remedy(remedy))
}

/// Settings that keep the probe from it, and not the gate.
fn restricted(facts: &Facts, _: &Options) -> Option<Seen> {
    let namespaces = &facts.user_namespaces;
    let clone = namespaces.unprivileged_clone == Some(false);
    let (seen, does) = match (clone, namespaces.apparmor_restricted) {
        (false, false) => return None,
        (true, false) => (CLONE, GRANTS),
        (false, true) => (APPARMOR, "installs and loads an AppArmor profile for it"),
        (true, true) => (
            "kernel.unprivileged_userns_clone is 0 and kernel.apparmor_restrict_unprivileged_userns is 1",
            "grants the gate's unit CAP_SYS_ADMIN, which it gives up once it has a namespace, and loads an AppArmor profile for it",
        ),
    };
    let remedy = match facts.flavour {
        Flavour::Unprivileged => format!(
            "nothing, if Nix works; if it was set after the migration: nix-unroot rollback, and migrate again, which {does}"
        ),
        _ => format!("nothing: the migration {does}"),
    };
    Some(Seen::new(seen).remedy(remedy))
}

fn no_parser(facts: &Facts, _: &Options) -> Option<Seen> {
    let namespaces = &facts.user_namespaces;
    (namespaces.apparmor_restricted && !namespaces.apparmor_parser).then(|| {
        Seen::new(format!("{APPARMOR}, and there is no apparmor_parser in {SAFE_PATH}"))
            .remedy("install the package apparmor")
    })
}

fn no_access_lists(facts: &Facts, _: &Options) -> Option<Seen> {
    let store = facts.store.as_ref().filter(|store| !store.access_lists)?;
    (facts.unsandboxed_builds() != Unsandboxed::Never).then(|| {
        Seen::new(format!("the file system of {} has no access control lists", store.path.display()))
            .remedy("turn them on (zfs: acltype=posixacl), or set sandbox = true in nix.conf")
    })
}

/// A build user could link the store to `/etc/shadow`; account tools replace that file, and then nothing tells its old inode, with
/// everybody's password hashes, from a file of the store.
fn unprotected_links(facts: &Facts, options: &Options) -> Option<Seen> {
    // What is migrated already has changed hands, and a rollback takes nothing from root.
    let changes_hands = !options.installing && facts.flavour != Flavour::Unprivileged;
    (changes_hands && facts.protected_hardlinks == Some(false)).then(|| {
        Seen::new("fs.protected_hardlinks is 0")
            .remedy(
                "forbid it, and make that last in /etc/sysctl.d; a file below /nix/store that not everybody can read \
                 may be such a link: see find /nix/store -type f ! -perm -o=r",
            )
            .command(&["sysctl", "-w", "fs.protected_hardlinks=1"])
    })
}

const CLONE: &str = "kernel.unprivileged_userns_clone is 0";
const APPARMOR: &str = "kernel.apparmor_restrict_unprivileged_userns is 1";
const GRANTS: &str = "grants the gate's unit CAP_SYS_ADMIN, which it gives up once it has a namespace";
