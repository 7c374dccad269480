//! `nix.conf`, and what the daemon could read only because it was root.

use super::Severity::Warning;
use super::{Check, Options, Seen};
use crate::facts::{Facts, Flavour, PathOwner, Unsandboxed};

pub(super) const CHECKS: &[Check] = &[
    Check {
        key: "secrets-only-root-can-read",
        severity: Warning,
        title: "files that nix.conf names or includes can be read by root only; the daemon will fail without them",
        see: secrets,
    },
    Check {
        key: "root-home-credentials",
        severity: Warning,
        title: "the daemon could use credentials in root's home, and will no longer",
        see: home_credentials,
    },
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
        key: "not-everything-seen",
        severity: Warning,
        title: "some things could not be read, so findings may be missing",
        see: unread,
    },
];

const ROOT_NIX_CONF: &str = "/root/.config/nix/nix.conf";

fn secrets(facts: &Facts, options: &Options) -> Option<Seen> {
    let named = facts.files_named_by_settings().into_iter().map(|named| (named.setting, named.file));
    let included = facts.nix_conf.iter().map(|file| ("include", file.path.clone()));
    let mut closed: Vec<(&str, &PathOwner)> = named
        .chain(included)
        .filter_map(|(setting, file)| Some((setting, facts.owner_of(file)?)))
        .filter(|(_, owner)| !nix_can_read(facts, options, owner))
        .collect();
    closed.sort_by(|a, b| a.1.path.cmp(&b.1.path));
    closed.dedup_by(|a, b| a.1.path == b.1.path);
    if closed.is_empty() {
        return None;
    }
    let words: Vec<_> = closed
        .iter()
        .map(|(setting, owner)| format!("{} ({setting}, {:04o})", owner.path.display(), owner.mode))
        .collect();
    let seen = Seen::new(words.join(", ")).remedy(format!(
        "after the migration, let the group {} read them; a file in root's home has to move to /etc/nix first",
        options.nix_user
    ));
    Some(closed.iter().fold(seen, |seen, (_, owner)| {
        let path = owner.path.display().to_string();
        let mode = format!("{:o}", owner.mode | 0o040);
        seen.command(&["chgrp", options.nix_user.as_str(), &path]).command(&["chmod", &mode, &path])
    }))
}

/// As far as the file's own mode tells.
fn nix_can_read(facts: &Facts, options: &Options, owner: &PathOwner) -> bool {
    let uid = facts.users.iter().find(|user| user.name == options.nix_user).map(|user| user.uid);
    let gid = facts.groups.iter().find(|group| group.name == options.nix_user).map(|group| group.gid);
    if Some(owner.uid) == uid {
        return owner.mode & 0o400 != 0;
    }
    if Some(owner.gid) == gid {
        return owner.mode & 0o040 != 0;
    }
    owner.mode & 0o004 != 0 && !owner.path.starts_with("/root")
}

fn home_credentials(facts: &Facts, _: &Options) -> Option<Seen> {
    let named: Vec<_> = facts.files_named_by_settings().into_iter().map(|named| named.file).collect();
    let of_root = |owner: &&PathOwner| {
        let path = &owner.path;
        path.starts_with("/root") && path.as_os_str() != ROOT_NIX_CONF && !named.contains(path)
    };
    let found: Vec<_> =
        facts.owners.iter().filter(of_root).map(|owner| owner.path.display().to_string()).collect();
    if found.is_empty() || facts.flavour == Flavour::Unprivileged {
        return None;
    }
    Some(Seen::new(found.join(", ")).remedy(
        "if remote builders or private caches depend on them, put copies that the group may read below /etc/nix and name them in nix.conf",
    ))
}

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
            "look whether they set anything else that is still needed, and put that into /etc/systemd/system/nix-daemon@.service.d; a limit now \
             holds for each connection",
        )
    })
}

fn sandbox(facts: &Facts, _: &Options) -> Option<Seen> {
    let (value, remedy) = match facts.unsandboxed_builds() {
        Unsandboxed::Never => return None,
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

fn unread(facts: &Facts, _: &Options) -> Option<Seen> {
    let first: Vec<_> =
        facts.unread.iter().take(3).map(|unread| format!("{}: {}", unread.what, unread.why)).collect();
    let more = facts.unread.len().saturating_sub(3);
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    (!first.is_empty()).then(|| Seen::new(format!("{}{rest}", first.join("; "))))
}
