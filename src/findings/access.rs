//! What else had a say in what root's daemon could do: access control of the kernel, devices, jobs of root, other installers.

use super::Severity::{Info, Warning};
use super::{Check, Options, Seen};
use crate::facts::{Facts, Flavour, SeLinux};

pub(super) const CHECKS: &[Check] = &[
    Check {
        key: "selinux-enforcing",
        severity: Warning,
        title: "SELinux enforces a policy, and none is known for the new daemon",
        see: selinux,
    },
    Check {
        key: "apparmor-confines-nix",
        severity: Warning,
        title: "AppArmor profiles name Nix, and were written for a daemon of root",
        see: apparmor,
    },
    Check {
        key: "kvm-closed",
        severity: Warning,
        title: "builds that need virtual machines will not be able to open /dev/kvm",
        see: kvm,
    },
    Check {
        key: "root-jobs-run-nix",
        severity: Warning,
        title: "root's timers, services or crontabs run Nix; after a migration they talk to the daemon instead of writing to the store",
        see: jobs,
    },
    Check {
        key: "units-of-packages",
        severity: Info,
        title: "packages own the old units; they stay installed, and units of ours in /etc take precedence",
        see: packages,
    },
    Check {
        key: "installers-leftovers",
        severity: Warning,
        title: "another installer could delete /nix: it keeps its receipt, and its uninstaller, there",
        see: installer,
    },
];

fn selinux(facts: &Facts, _: &Options) -> Option<Seen> {
    (facts.access_control.selinux == SeLinux::Enforcing).then(|| {
        Seen::new("SELinux is enforcing").remedy(
            "try the migration on one such machine first (a denial makes its last step fail, and everything is undone), and look for denials",
        )
        .command(&["ausearch", "-m", "AVC", "-ts", "recent"])
    })
}

fn apparmor(facts: &Facts, _: &Options) -> Option<Seen> {
    let profiles = &facts.access_control.apparmor_profiles;
    let names: Vec<_> = profiles.iter().map(|path| path.display().to_string()).collect();
    (!names.is_empty()).then(|| {
        Seen::new(names.join(", ")).remedy(
            "see whether they let /usr/local/libexec/nix-unroot/nix-daemon-gate start the daemon, make a user namespace (`userns,`) and mount",
        )
    })
}

fn kvm(facts: &Facts, _: &Options) -> Option<Seen> {
    let device = facts.owner_of("/dev/kvm").filter(|device| device.mode & 0o006 != 0o006)?;
    if facts.flavour == Flavour::Unprivileged || facts.mac.is_some() {
        return None;
    }
    Some(Seen::new(format!("/dev/kvm has mode {:04o}", device.mode)).remedy(
        "if builds need it: a udev rule KERNEL==\"kvm\", MODE=\"0666\" (systemd's default); if not, nothing",
    ))
}

fn jobs(facts: &Facts, _: &Options) -> Option<Seen> {
    let first = facts.root_jobs.iter().take(5);
    let words: Vec<_> = first.map(|job| format!("{}: {}", job.path.display(), job.command)).collect();
    let more = facts.root_jobs.len().saturating_sub(5);
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    if words.is_empty() || facts.flavour == Flavour::Unprivileged {
        return None;
    }
    Some(Seen::new(format!("{}{rest}", words.join("; "))).remedy(
        "look whether they need more than the daemon gives: deleting old generations of other users' profiles, or writing below /nix by \
         themselves; after the migration, nix-unroot audit tells which of them run programs that the Nix user can change",
    ))
}

fn packages(facts: &Facts, _: &Options) -> Option<Seen> {
    let Flavour::Packages { packages, .. } = &facts.flavour else { return None };
    Some(Seen::new(packages.join(", ")))
}

fn installer(facts: &Facts, options: &Options) -> Option<Seen> {
    let files: Vec<_> = ["/nix/receipt.json", "/nix/nix-installer"]
        .into_iter()
        .filter(|path| facts.owner_of(path).is_some())
        .collect();
    if files.is_empty() {
        return None;
    }
    let remedy = match options.keep_installer {
        true => {
            "with --keep-installer they stay: `/nix/nix-installer uninstall` will delete /nix, and root must not run it"
        }
        false => {
            "the migration takes them over: they go into the run's backups, and a rollback puts them back"
        }
    };
    Some(Seen::new(files.join(", ")).remedy(remedy))
}
