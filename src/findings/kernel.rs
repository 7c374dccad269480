//! What the kernel and the init system must offer.

use super::Severity::Blocker;
use super::{Check, Options, Seen};
use crate::facts::{Facts, Init};

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
        severity: Blocker,
        title: "user namespaces are restricted for processes without privileges, and the gate needs one",
        see: restricted,
    },
];

fn no_systemd(facts: &Facts, _: &Options) -> Option<Seen> {
    let name = match &facts.init {
        Init::Systemd { .. } => return None,
        Init::Launchd => "launchd",
        Init::Other { name } => name,
    };
    Some(
        Seen::new(format!("process 1 is {name}, and /run/systemd/system is not there")).remedy(
            "boot this machine with systemd (in WSL: `systemd=true` below `[boot]` in /etc/wsl.conf)",
        ),
    )
}

fn impossible(facts: &Facts, options: &Options) -> Option<Seen> {
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

fn restricted(facts: &Facts, _: &Options) -> Option<Seen> {
    let namespaces = &facts.user_namespaces;
    if namespaces.unprivileged_clone == Some(false) {
        let setting = "kernel.unprivileged_userns_clone";
        return Some(
            Seen::new(format!("{setting} is 0"))
                .remedy("allow them, and make that last in /etc/sysctl.d")
                .command(&["sysctl", "-w", &format!("{setting}=1")]),
        );
    }
    namespaces.apparmor_restricted.then(|| {
        Seen::new("kernel.apparmor_restrict_unprivileged_userns is 1")
            .remedy("lift the restriction, and make that last in /etc/sysctl.d")
            .command(&["sysctl", "-w", "kernel.apparmor_restrict_unprivileged_userns=0"])
    })
}
