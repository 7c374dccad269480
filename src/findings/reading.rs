//! Files that the daemon could read, and programs that it ran, only because it was root.

use std::path::Path;

use super::Severity::{Blocker, Info, Warning};
use super::share::{can_be_shared, copied, nix_can_read, shared};
use super::{Check, Options, Seen};
use crate::facts::{DaemonFile, Facts, FileKind, Flavour};

pub(super) const CHECKS: &[Check] = &[
    Check {
        key: "nix-conf-only-root-can-read",
        severity: Blocker,
        title: "the gate must read all of nix.conf, or it would lose trust rules and limits, and it is not root",
        see: |facts, options| closed(facts, options, |kind| kind == FileKind::Conf),
    },
    Check {
        key: "secrets-only-root-can-read",
        severity: Warning,
        title: "files that Nix's settings name can be read by root only; the daemon will fail without them",
        see: |facts, options| closed(facts, options, is_secret),
    },
    Check {
        key: "files-get-shared",
        severity: Info,
        title: "the Nix group will be able to read these, as you asked; a rollback takes that back",
        see: will_be_shared,
    },
    Check {
        key: "hooks-ran-as-root",
        severity: Warning,
        title: "the daemon runs these hooks, until now as root",
        see: hooks,
    },
    Check {
        key: "plugins-loaded",
        severity: Warning,
        title: "the daemon loads plugins, which will run as the Nix user",
        see: plugins,
    },
    Check {
        key: "sandbox-paths-closed",
        severity: Warning,
        title: "builds see files or devices that only root or a group may use, and builds will be in no group",
        see: sandbox_paths,
    },
    Check {
        key: "builders-over-ssh",
        severity: Warning,
        title: "remote builders and stores are reached with ssh, until now with root's keys and known hosts",
        see: over_ssh,
    },
    Check {
        key: "root-home-credentials",
        severity: Warning,
        title: "the daemon could use credentials in root's home, and will no longer",
        see: home_credentials,
    },
];

fn is_secret(kind: FileKind) -> bool {
    !matches!(kind, FileKind::Conf | FileKind::Hook | FileKind::Plugin | FileKind::SandboxPath)
}

fn closed(facts: &Facts, options: &Options, wanted: fn(FileKind) -> bool) -> Option<Seen> {
    let will_be = shared(facts, options);
    let files: Vec<&DaemonFile> = facts
        .daemon_files
        .iter()
        .filter(|file| {
            wanted(file.kind) && !nix_can_read(facts, options, file) && !will_be.contains(&file.real)
        })
        .collect();
    let words = files.iter().map(|file| describe(file)).collect::<Vec<_>>();
    if words.is_empty() {
        return None;
    }
    let (easy, hard): (Vec<&DaemonFile>, Vec<_>) = files.into_iter().partition(|file| can_be_shared(file));
    let mut flags: Vec<_> = easy.iter().filter_map(|file| Some(options.share.flag(file.kind)?.0)).collect();
    flags.sort_unstable();
    flags.dedup();
    let mut remedies = Vec::new();
    let group = &options.nix_user;
    if !flags.is_empty() {
        let flags = flags.join(" ");
        remedies.push(match facts.flavour == Flavour::Unprivileged {
            true => format!("let the group {group} read them"),
            false => format!("give {flags}, and the migration lets the group {group} read them"),
        });
    }
    if !hard.is_empty() {
        let names = hard.iter().map(|file| file.path.display().to_string()).collect::<Vec<_>>().join(", ");
        remedies.push(format!(
            "move {names} to where {group} may read them (below /etc/nix, say), or change what makes them"
        ));
    }
    let seen = Seen::new(words.join(", ")).remedy(remedies.join("; "));
    if facts.flavour != Flavour::Unprivileged {
        return Some(seen);
    }
    Some(easy.iter().fold(seen, |seen, file| {
        let path = file.real.display().to_string();
        let mode = format!("{:o}", file.mode | 0o040);
        seen.command(&["chgrp", options.nix_user.as_str(), &path]).command(&["chmod", &mode, &path])
    }))
}

fn describe(file: &DaemonFile) -> String {
    let way = file
        .closed_directory
        .as_ref()
        .map_or(String::new(), |directory| format!(", in {}", directory.display()));
    format!("{} ({}, {:04o}{way})", file.path.display(), file.named_by, file.mode)
}

fn will_be_shared(facts: &Facts, options: &Options) -> Option<Seen> {
    if facts.flavour == Flavour::Unprivileged {
        return None;
    }
    let mut names: Vec<_> = shared(facts, options).iter().map(|path| path.display().to_string()).collect();
    for (wanted, directory) in [(options.share.ssh, "/root/.ssh"), (options.share.aws, "/root/.aws")] {
        let files = copied(facts, wanted, Path::new(directory));
        names.extend(files.iter().map(|name| format!("a copy of {directory}/{name}")));
    }
    (!names.is_empty()).then(|| Seen::new(names.join(", ")))
}

fn hooks(facts: &Facts, _: &Options) -> Option<Seen> {
    let settings = ["post-build-hook", "diff-hook", "pre-build-hook", "build-hook"];
    let set = settings.iter().filter_map(|setting| {
        let value = facts.effective_setting(setting).filter(|value| !value.is_empty())?;
        Some(format!("{setting} = {value}"))
    });
    let set: Vec<_> = set.collect();
    let cannot = facts.daemon_files.iter().filter(|file| {
        file.kind == FileKind::Hook && (file.mode & 0o005 != 0o005 || file.closed_directory.is_some())
    });
    let cannot: Vec<_> = cannot.map(describe).collect();
    if set.is_empty() || facts.flavour == Flavour::Unprivileged {
        return None;
    }
    let closed = match cannot.is_empty() {
        true => String::new(),
        false => format!("; others may not read and execute {}", cannot.join(", ")),
    };
    Some(Seen::new(format!("{}{closed}", set.join(", "))).remedy(
        "run each once as another user before you migrate: it will run as the Nix user, cannot use sudo, can write to the store, /tmp and \
         /var/tmp only, and everything it reads (keys, tokens) must be readable for that user",
    ))
}

fn plugins(facts: &Facts, options: &Options) -> Option<Seen> {
    let value = facts.effective_setting("plugin-files").filter(|value| !value.is_empty())?;
    let closed = facts.daemon_files.iter().filter(|file| file.kind == FileKind::Plugin);
    let closed: Vec<_> = closed.filter(|file| !nix_can_read(facts, options, file)).map(describe).collect();
    let cannot = match closed.is_empty() {
        true => String::new(),
        false => format!("; root alone can read {}", closed.join(", ")),
    };
    Some(
        Seen::new(format!("plugin-files = {value}{cannot}"))
            .remedy("see to it that everybody can read them, and that they need no rights of root"),
    )
}

fn sandbox_paths(facts: &Facts, _: &Options) -> Option<Seen> {
    let closed: Vec<_> = facts
        .daemon_files
        .iter()
        .filter(|file| file.kind == FileKind::SandboxPath)
        .filter(|file| file.mode & 0o004 == 0 || file.closed_directory.is_some())
        .map(describe)
        .collect();
    if closed.is_empty() || facts.flavour == Flavour::Unprivileged {
        return None;
    }
    Some(Seen::new(closed.join(", ")).remedy(
        "open them for everybody (a device with a udev rule), or take them out of sandbox-paths: every build has an id of its own, so no group \
         can be given to it",
    ))
}

fn over_ssh(facts: &Facts, options: &Options) -> Option<Seen> {
    let builders = facts.builders.iter().filter(|builder| builder.over_ssh);
    let mut uris: Vec<_> = builders.map(|builder| builder.uri.clone()).collect();
    for setting in ["substituters", "trusted-substituters"] {
        let stores = facts.effective_setting(setting).unwrap_or_default();
        uris.extend(stores.split_whitespace().filter(|uri| uri.starts_with("ssh")).map(str::to_owned));
    }
    if uris.is_empty() || options.share.ssh || facts.flavour == Flavour::Unprivileged {
        return None;
    }
    let files = copied(facts, true, Path::new("/root/.ssh"));
    let held = if files.is_empty() { "nothing".to_owned() } else { files.join(", ") };
    Some(Seen::new(format!("{}; /root/.ssh holds {held}", uris.join(", "))).remedy(
        "give --share-ssh, and the migration puts copies into the daemon's home; hosts can also stand in /etc/ssh/ssh_known_hosts; a key that \
         a line of a builder names by a path in /root has to move",
    ))
}

fn home_credentials(facts: &Facts, options: &Options) -> Option<Seen> {
    let named = |path: &Path| facts.daemon_files.iter().any(|file| file.path == path);
    let of_root = |path: &Path| {
        let ssh = path.starts_with("/root/.ssh");
        let aws = path.starts_with("/root/.aws") && !options.share.aws;
        path.starts_with("/root") && !ssh && (aws || path.ends_with(".netrc")) && !named(path)
    };
    let owners = facts.owners.iter().filter(|owner| of_root(&owner.path));
    let found: Vec<_> = owners.map(|owner| owner.path.display().to_string()).collect();
    if found.is_empty() || facts.flavour == Flavour::Unprivileged {
        return None;
    }
    Some(Seen::new(found.join(", ")).remedy(
        "if private caches depend on them: --share-aws copies AWS credentials into the daemon's home; a netrc belongs into the file that \
         netrc-file names",
    ))
}
