//! What a Mac lacks or has too much of.

use super::Severity::{Blocker, Info, Warning};
use super::{Check, Options, Seen};
use crate::facts::macos::{HOOK, Job, Mac, Volume};
use crate::facts::{Facts, Flavour};

pub(super) const CHECKS: &[Check] = &[
    Check {
        key: "macos-only-inspected",
        severity: Blocker,
        title: "this was not made for Macs yet",
        see: only_inspected,
    },
    Check {
        key: "macos-untried",
        severity: Blocker,
        title: "nobody ever ran this on a Mac: it was tried on simulated ones only",
        see: untried,
    },
    Check {
        key: "macos-build-users-missing",
        severity: Blocker,
        title: "there are no build users, and without them every build would run as the owner of the store",
        see: build_users_missing,
    },
    Check {
        key: "macos-build-accounts-left",
        severity: Blocker,
        title: "accounts for builds are left over that are not whole: a group without users, or users without their group",
        see: build_accounts_left,
    },
    Check {
        key: "macos-no-container",
        severity: Blocker,
        title: "the system's disk is no container of APFS, to which a volume could be added",
        see: no_container,
    },
    Check {
        key: "macos-volume-left",
        severity: Blocker,
        title: "a volume for Nix is there already",
        see: volume_left,
    },
    Check {
        key: "macos-nix-is-a-link",
        severity: Blocker,
        title: "/etc/synthetic.conf makes /nix a link",
        see: nix_is_a_link,
    },
    Check {
        key: "macos-owners-ignored",
        severity: Blocker,
        title: "owners do not count on Nix's volume, so handing it to a user would change nothing",
        see: owners_ignored,
    },
    Check {
        key: "macos-volume-missing",
        severity: Warning,
        title: "Nix has no volume of its own, or it is not mounted",
        see: volume_missing,
    },
    Check {
        key: "macos-volume-not-encrypted",
        severity: Warning,
        title: "the system's disk is encrypted, and Nix's volume is not",
        see: not_encrypted,
    },
    Check {
        key: "macos-password-missing",
        severity: Warning,
        title: "Nix's volume is encrypted, and the system's keychain has no password for it: it will not be there after a restart",
        see: password_missing,
    },
    Check {
        key: "macos-mount-point-missing",
        severity: Warning,
        title: "nothing makes /nix after a restart",
        see: mount_point_missing,
    },
    Check {
        key: "macos-fstab-differs",
        severity: Warning,
        title: "/etc/fstab does not mount this volume at /nix",
        see: fstab_differs,
    },
    Check {
        key: "macos-mounter-missing",
        severity: Warning,
        title: "no job of launchd mounts Nix's volume when the machine starts",
        see: mounter_missing,
    },
    Check {
        key: "macos-daemon-not-loaded",
        severity: Warning,
        title: "launchd does not run Nix's daemon",
        see: daemon_not_loaded,
    },
    Check {
        key: "macos-uids-taken",
        severity: Warning,
        title: "an update of macOS took the uids of build users for accounts of its own",
        see: uids_taken,
    },
    Check {
        key: "macos-shell-files-reset",
        severity: Warning,
        title: "an update of macOS replaced shells' files, and shells do not find Nix any more",
        see: shell_files_reset,
    },
    Check {
        key: "macos-jobs-of-others",
        severity: Warning,
        title: "property lists that root's launchd reads belong to somebody else, or lie below /nix",
        see: jobs_of_others,
    },
    Check {
        key: "macos-root-runs-nix",
        severity: Info,
        title: "launchd runs programs below /nix as root",
        see: root_runs_nix,
    },
    Check {
        key: "macos-installer-hook",
        severity: Info,
        title: "an installer's job repairs shells' files as root, with a program below /nix",
        see: installer_hook,
    },
];

/// The Mac, when there is a Nix on it.
fn mac(facts: &Facts) -> Option<&Mac> {
    facts.mac.as_ref().filter(|_| facts.flavour != Flavour::None)
}

fn only_inspected(facts: &Facts, options: &Options) -> Option<Seen> {
    facts.mac.as_ref()?;
    let what = match (options.installing, options.brings_nix, &facts.single_user) {
        (true, ..) => return None,
        (_, true, _) => "bringing another Nix along on a Mac",
        (.., Some(_)) => "a store that a person owns, on a Mac",
        _ => return None,
    };
    let remedy =
        "install Nix 2.34 or newer for many users with its own installer, then migrate; see docs/macos.md";
    Some(Seen::new(format!("{what} ({})", facts.os.name)).remedy(remedy))
}

fn untried(facts: &Facts, options: &Options) -> Option<Seen> {
    facts.mac.as_ref().filter(|_| !options.untried_on_macs)?;
    Some(Seen::new(facts.os.name.as_str()).remedy(
        "read docs/macos.md, look at --dry-run, have a backup or a Mac that you can do without, and give --untried-on-macs",
    ))
}

fn build_users_missing(facts: &Facts, options: &Options) -> Option<Seen> {
    mac(facts).filter(|_| !options.installing && facts.build_users.members.is_empty())?;
    let group = facts.build_users.group.as_deref().unwrap_or("nixbld");
    Some(Seen::new(format!("the group {group} is not there, or nobody is in it")).remedy(
        "let the installer that made this Nix make them again (its repair, or its installation once more)",
    ))
}

/// The Mac that Nix is to be installed on.
fn new_mac<'f>(facts: &'f Facts, options: &Options) -> Option<&'f Mac> {
    facts.mac.as_ref().filter(|_| options.installing && facts.flavour == Flavour::None)
}

fn no_container(facts: &Facts, options: &Options) -> Option<Seen> {
    let disk = &new_mac(facts, options)?.disk;
    let has_one = disk.as_ref().is_some_and(|disk| disk.container.is_some());
    (!has_one).then(|| {
        Seen::new("diskutil info -plist / names no APFSContainerReference")
            .remedy("Nix's volume needs macOS 10.15 or newer on APFS")
    })
}

fn volume_left(facts: &Facts, options: &Options) -> Option<Seen> {
    let mac = new_mac(facts, options)?;
    let seen = |volume: &Volume| Seen::new(format!("{} ({}, {})", volume.name, volume.device, volume.uuid));
    if let Some(volume) = mac.volume.as_ref().or(mac.unmounted.as_ref()) {
        let remedy = "when nothing on it is needed: nix-unroot uninstall removes it with its password";
        return Some(seen(volume).remedy(remedy));
    }
    Some(seen(mac.elsewhere.as_ref()?).remedy(
        "it is on another disk than the system, or mounted elsewhere, so it is not this Mac's: take its disk away or rename it \
         (diskutil rename), because two volumes of one name cannot be told apart",
    ))
}

/// Accounts that an installation would make, and that are there in another form.
fn build_accounts_left(facts: &Facts, options: &Options) -> Option<Seen> {
    new_mac(facts, options).filter(|_| facts.build_users.members.is_empty())?;
    let users = facts.users.iter().map(|user| &user.name).filter(|name| is_build_user(name));
    let users = users.map(|name| format!("/Users/{name}"));
    let group = facts.build_users.group.iter().map(|name| format!("/Groups/{name}"));
    let left: Vec<_> = users.chain(group).collect();
    left.first()?;
    let seen = Seen::new(left.join(", ")).remedy("remove them, so that all of them are made, in one piece");
    Some(left.iter().fold(seen, |seen, path| seen.command(&["dscl", ".", "-delete", path])))
}

/// `_nixbld` with a number.
fn is_build_user(name: &str) -> bool {
    name.strip_prefix("_nixbld").is_some_and(|number| number.parse::<u32>().is_ok())
}

fn nix_is_a_link(facts: &Facts, options: &Options) -> Option<Seen> {
    let target = new_mac(facts, options)?.synthetic.as_ref()?.target.as_ref()?;
    let seen = format!("/nix would lead to {target}");
    Some(Seen::new(seen).remedy("take the line `nix` out of /etc/synthetic.conf, and restart the Mac"))
}

fn owners_ignored(facts: &Facts, _: &Options) -> Option<Seen> {
    let volume = mac(facts)?.volume.as_ref().filter(|volume| !volume.owners_enabled)?;
    Some(
        Seen::new(format!("{} ({}) is mounted with noowners", volume.name, volume.device))
            .remedy("make owners count, and look whose the files in /nix then are")
            .command(&["diskutil", "enableOwnership", &volume.device]),
    )
}

fn volume_missing(facts: &Facts, _: &Options) -> Option<Seen> {
    let is_missing = mac(facts)?.volume.is_none() && facts.store.is_some();
    is_missing.then(|| {
        Seen::new("/nix lies on another volume")
            .remedy("look with `diskutil apfs list` whether a volume for Nix is there and not mounted")
    })
}

fn not_encrypted(facts: &Facts, _: &Options) -> Option<Seen> {
    let volume = mac(facts)?.volume.as_ref()?;
    (volume.system_encrypted == Some(true) && volume.encrypted == Some(false)).then(|| {
        Seen::new(format!("{} ({}) can be read by whoever has the disk", volume.name, volume.device)).remedy(
            "encrypt it, and put its password into the system's keychain, when what you build is secret",
        )
    })
}

fn password_missing(facts: &Facts, _: &Options) -> Option<Seen> {
    let volume = mac(facts)?.volume.as_ref()?;
    (volume.encrypted == Some(true) && volume.keychain_item.is_none()).then(|| {
        Seen::new(format!(
            "no item with the account {:?} and the service {}, or that name, was found",
            volume.name, volume.uuid
        ))
        .remedy("put the password there while you know it: without it the volume cannot be unlocked")
        .command(&["security", "find-generic-password", "-a", &volume.name, "-s", &volume.uuid])
    })
}

fn mount_point_missing(facts: &Facts, _: &Options) -> Option<Seen> {
    let mac = mac(facts)?;
    mac.volume.as_ref()?;
    match &mac.synthetic {
        None => Some(Seen::new("/etc/synthetic.conf has no line `nix`")),
        Some(line) => line
            .target
            .as_ref()
            .map(|target| Seen::new(format!("/etc/synthetic.conf makes /nix a link to {target}"))),
    }
    .map(|seen| seen.remedy("put the line `nix`, and nothing more on it, into /etc/synthetic.conf"))
}

fn fstab_differs(facts: &Facts, _: &Options) -> Option<Seen> {
    let mac = mac(facts)?;
    let volume = mac.volume.as_ref()?;
    let remedy =
        format!("let it say: UUID={} /nix apfs rw,noauto,nobrowse,nosuid,noatime,owners", volume.uuid);
    let seen = match &mac.fstab {
        None => "it has no line for /nix".to_owned(),
        Some(line) if line.uuid().is_some_and(|uuid| uuid != volume.uuid.to_ascii_uppercase()) => {
            format!("it names {}, the volume is {}", line.what, volume.uuid)
        }
        Some(_) => return None,
    };
    Some(Seen::new(seen).remedy(remedy).command(&["vifs"]))
}

fn mounter_missing(facts: &Facts, _: &Options) -> Option<Seen> {
    let mac = mac(facts)?;
    mac.volume.as_ref()?;
    let seen = match mac.mounter() {
        None => "no property list of one is in /Library/LaunchDaemons".to_owned(),
        Some(job) if job.disabled => format!("{} is disabled", job.label),
        Some(_) => return None,
    };
    Some(Seen::new(seen).remedy("run the installer's repair, or its installation, again"))
}

fn daemon_not_loaded(facts: &Facts, _: &Options) -> Option<Seen> {
    let job = mac(facts)?.daemon()?;
    let service = format!("system/{}", job.label);
    if job.disabled {
        let seen = Seen::new(format!("{} is disabled", job.label)).remedy("enable it, and load it");
        return Some(seen.command(&["launchctl", "enable", &service]).command(&[
            "launchctl",
            "bootstrap",
            "system",
            &job.path.display().to_string(),
        ]));
    }
    (!job.loaded).then(|| {
        Seen::new(format!("{} is not loaded", job.label)).remedy("load it").command(&[
            "launchctl",
            "bootstrap",
            "system",
            &job.path.display().to_string(),
        ])
    })
}

/// Build users are numbered, and so are their uids: the uid of one that is missing follows from those that are there.
fn uids_taken(facts: &Facts, _: &Options) -> Option<Seen> {
    mac(facts)?;
    let number = |name: &str| {
        name.strip_prefix("_nixbld").or_else(|| name.strip_prefix("nixbld"))?.parse::<u32>().ok()
    };
    let numbered: Vec<(u32, u32)> =
        facts.build_users.members.iter().filter_map(|(name, uid)| Some((number(name)?, *uid))).collect();
    let (last, uid) = numbered.iter().max()?;
    let base = uid.checked_sub(*last)?;
    let is_regular = numbered.iter().all(|(number, uid)| base + number == *uid);
    // Members that have no account any more are those that lost their uid.
    let gone = |number: &u32| !numbered.iter().any(|(other, _)| other == number);
    let taken: Vec<_> = (1..*last)
        .filter(gone)
        .filter_map(|number| facts.users.iter().find(|user| user.uid == base + number))
        .map(|user| format!("{} has {}", user.name, user.uid))
        .collect();
    (is_regular && !taken.is_empty()).then(|| {
        Seen::new(taken.join(", ")).remedy(
            "give build users other uids: Nix's repository has scripts/sequoia-nixbld-user-migration.sh for that",
        )
    })
}

fn shell_files_reset(facts: &Facts, _: &Options) -> Option<Seen> {
    let reset = mac(facts)?.shell_files.iter().filter(|file| file.has_backup && !file.has_block);
    let reset: Vec<_> = reset.map(|file| file.path.display().to_string()).collect();
    (!reset.is_empty()).then(|| {
        Seen::new(reset.join(", "))
            .remedy("let them source /nix/var/nix/profiles/default/etc/profile.d/nix-daemon.sh again")
    })
}

fn jobs_of_others(facts: &Facts, _: &Options) -> Option<Seen> {
    let open = mac(facts)?.jobs.iter().filter(|job| job.owner != 0 || job.real_path.starts_with("/nix"));
    let open: Vec<_> = open.map(|job| format!("{} ({})", job.path.display(), owner_of(facts, job))).collect();
    (!open.is_empty()).then(|| {
        Seen::new(open.join(", "))
            .remedy("make each a file of root's outside /nix: who can change it can run anything as root")
    })
}

fn owner_of(facts: &Facts, job: &Job) -> String {
    if job.real_path.starts_with("/nix") {
        return format!("leads to {}", job.real_path.display());
    }
    let name = facts.users.iter().find(|user| user.uid == job.owner).map(|user| user.name.clone());
    format!("belongs to {}", name.unwrap_or_else(|| job.owner.to_string()))
}

fn root_runs_nix(facts: &Facts, _: &Options) -> Option<Seen> {
    let jobs = mac(facts)?.jobs.iter().filter(|job| job.is_root_from_nix() && job.label != HOOK);
    let jobs: Vec<_> = jobs.map(|job| job.label.clone()).collect();
    (!jobs.is_empty()).then(|| Seen::new(jobs.join(", ")))
}

fn installer_hook(facts: &Facts, _: &Options) -> Option<Seen> {
    let job = mac(facts)?.job(HOOK)?;
    Some(
        Seen::new(job.path.display().to_string())
            .remedy("remove it when /nix is no longer root's: it would then run what Nix's user put there")
            .command(&["launchctl", "bootout", &format!("system/{HOOK}")]),
    )
}
