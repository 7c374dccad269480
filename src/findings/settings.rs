//! `nix.conf`, and what was set on the old daemon's unit.

use super::Severity::{Info, Warning};
use super::{Check, Options, Seen};
use crate::facts::{Facts, Flavour, Unsandboxed};

pub(super) const CHECKS: &[Check] = &[
    Check {
        key: "root-nix-conf",
        severity: Warning,
        title: "root's own nix.conf steers the daemon, and will no longer",
        see: root_nix_conf,
    },
    Check {
        key: "unit-drop-ins",
        severity: Warning,
        title: "of the drop-ins of nix-daemon.service, only environment and limits are carried over",
        see: drop_ins,
    },
    Check {
        key: "sandbox-off",
        severity: Warning,
        title: "builds are not, or not always, isolated",
        see: sandbox,
    },
    Check {
        key: "sandbox-fallback",
        severity: Info,
        title: "builds that cannot be isolated run all the same; after a migration they fail",
        see: sandbox_fallback,
    },
    Check {
        key: "builds-in-cgroups",
        severity: Warning,
        title: "builds get control groups of their own, which the new unit does not hand out",
        see: cgroups,
    },
    Check {
        key: "proxies-carried-over",
        severity: Info,
        title: "proxies of the old unit are written into the new one",
        see: proxies,
    },
    Check {
        key: "not-everything-seen",
        severity: Warning,
        title: "some things could not be read, so findings may be missing",
        see: unread,
    },
];

const ROOT_NIX_CONF: &str = "/root/.config/nix/nix.conf";

fn root_nix_conf(facts: &Facts, _: &Options) -> Option<Seen> {
    facts.owner_of(ROOT_NIX_CONF)?;
    Some(
        Seen::new(format!("{ROOT_NIX_CONF} is there"))
            .remedy("move what the daemon needs of it to /etc/nix/nix.conf"),
    )
}

fn drop_ins(facts: &Facts, _: &Options) -> Option<Seen> {
    let unit = facts.unit("nix-daemon.service").filter(|unit| unit.file_state != "masked")?;
    let paths: Vec<_> = unit.drop_ins.iter().map(|file| file.path.display().to_string()).collect();
    (!paths.is_empty()).then(|| {
        Seen::new(paths.join(", ")).remedy(
            "look whether they set anything else that is still needed, and put that into /etc/systemd/system/nix-daemon-gate.service.d",
        )
    })
}

fn sandbox(facts: &Facts, _: &Options) -> Option<Seen> {
    let (value, remedy) = match facts.unsandboxed_builds() {
        Unsandboxed::Never => return None,
        found if facts.mac.is_some() => (
            if found == Unsandboxed::Marked { "relaxed" } else { "false" },
            "after a migration the setting has no effect: all builds get the broker's own sandbox (docs/broker.md), so see what depends on having none",
        ),
        Unsandboxed::Marked => (
            "relaxed",
            "it stays so: /nix/store gets an access entry with which builds marked __noChroot make their outputs, under ids of their own",
        ),
        Unsandboxed::Always => (
            "false",
            "after a migration builds are sandboxed, unless a trusted user says --option sandbox false; build what your users need once with \
             --option sandbox true, to see what depends on it",
        ),
    };
    Some(Seen::new(format!("nix.conf sets sandbox = {value}")).remedy(remedy))
}

fn sandbox_fallback(facts: &Facts, _: &Options) -> Option<Seen> {
    let value = facts.effective_setting("sandbox-fallback").filter(|value| value == "true")?;
    (facts.flavour != Flavour::Unprivileged)
        .then(|| Seen::new(format!("nix.conf sets sandbox-fallback = {value}")))
}

fn cgroups(facts: &Facts, _: &Options) -> Option<Seen> {
    let value = facts.effective_setting("use-cgroups").filter(|value| value == "true")?;
    Some(Seen::new(format!("nix.conf sets use-cgroups = {value}")).remedy(
        "take use-cgroups out of nix.conf before you migrate, or give nix-daemon-gate.service a drop-in with Delegate=yes",
    ))
}

fn proxies(facts: &Facts, _: &Options) -> Option<Seen> {
    let unit = facts.unit("nix-daemon.service").filter(|unit| unit.file_state != "masked")?;
    let lines = unit.drop_ins.iter().flat_map(|file| file.text.lines());
    let set = lines.filter(|line| {
        line.trim_start().starts_with("Environment=") && line.to_ascii_lowercase().contains("_proxy=")
    });
    let set: Vec<_> = set.map(str::trim).collect();
    (!set.is_empty()).then(|| Seen::new(set.join("; ")))
}

fn unread(facts: &Facts, _: &Options) -> Option<Seen> {
    let first: Vec<_> =
        facts.unread.iter().take(3).map(|unread| format!("{}: {}", unread.what, unread.why)).collect();
    let more = facts.unread.len().saturating_sub(3);
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    (!first.is_empty()).then(|| Seen::new(format!("{}{rest}", first.join("; "))))
}
