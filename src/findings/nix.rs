//! The Nix that the daemon runs.

use super::Severity::{Blocker, Warning};
use super::{Check, Options, Seen};
use crate::facts::macos::Mac;
use crate::facts::{Facts, Flavour, NixBinary};
use crate::types::{NixVersion, StorePath};

pub(super) const CHECKS: &[Check] = &[
    Check {
        key: "nix-too-old",
        severity: Blocker,
        title: "this Nix cannot ask a separate root scanner (2.34 or newer can)",
        see: too_old,
    },
    Check {
        key: "nix-version-unknown",
        severity: Blocker,
        title: "the daemon's version could not be found out",
        see: version_unknown,
    },
    Check {
        key: "nix-vulnerable",
        severity: Warning,
        title: "this Nix has CVE-2026-44028 (code execution through a crafted archive)",
        see: vulnerable,
    },
];

fn too_old(facts: &Facts, options: &Options) -> Option<Seen> {
    let (binary, version) = daemon(facts, options)?;
    let old = !version?.at_least(NixVersion::FIRST_WITH_ROOTS_DAEMON);
    let remedy = match facts.mac {
        Some(_) => "upgrade Nix to 2.34.7 or newer, then migrate",
        None => {
            "upgrade Nix to 2.34.7 or newer, then migrate; or bring a newer one along with migrate --nix-archive FILE"
        }
    };
    old.then(|| upgrade(facts, binary, remedy))
}

fn vulnerable(facts: &Facts, options: &Options) -> Option<Seen> {
    let (binary, version) = daemon(facts, options)?;
    let version = version?;
    let bad = version.at_least(NixVersion::FIRST_WITH_ROOTS_DAEMON)
        && !version.at_least(NixVersion::FIRST_WITHOUT_CVE_2026_44028);
    bad.then(|| upgrade(facts, binary, "upgrade Nix to 2.34.7 or newer"))
}

fn version_unknown(facts: &Facts, options: &Options) -> Option<Seen> {
    let (binary, version) = daemon(facts, options)?;
    version.is_none().then(|| {
        Seen::new(format!("{} tells no version that can be read", binary.real_path.display()))
            .remedy("see what `--version` of that program says; 2.34 or newer is needed")
            .command(&[binary.path.display().to_string().as_str(), "--version"])
    })
}

/// The Nix that the daemon will run, where its version means something: forks count otherwise, and where a newer Nix is
/// brought along, the one that is there does not matter.
fn daemon<'f>(facts: &'f Facts, options: &Options) -> Option<(&'f NixBinary, Option<&'f NixVersion>)> {
    let upstream = !matches!(facts.flavour, Flavour::Lix | Flavour::DeterminateNix | Flavour::None);
    let person = facts.single_user.as_ref().and_then(|person| person.nix.as_ref());
    let of_person =
        |nix: &&NixBinary| person.is_some() && StorePath::containing(&nix.real_path).as_ref() == person;
    let daemon = facts.nix.iter().find(|nix| nix.runs_daemon);
    let binary = daemon.or_else(|| facts.nix.iter().find(of_person)).or_else(|| facts.nix.first())?;
    (upstream && !options.brings_nix).then_some((binary, binary.version.as_ref()))
}

fn upgrade(facts: &Facts, binary: &NixBinary, remedy: &str) -> Seen {
    let version = binary.version.as_ref().map(ToString::to_string).unwrap_or_default();
    let seen =
        Seen::new(format!("{} is {version} ({})", binary.path.display(), binary.provider)).remedy(remedy);
    match &facts.flavour {
        Flavour::Packages { distribution, packages } => {
            let names = packages.iter().filter_map(|package| package.split(' ').next());
            let tool: &[&str] = match distribution.as_str() {
                "debian" => &["apt-get", "install", "--only-upgrade"],
                "fedora" => &["dnf", "upgrade"],
                _ => &["pacman", "-S"],
            };
            seen.command(&tool.iter().copied().chain(names).collect::<Vec<_>>())
        }
        Flavour::OfficialMultiUser | Flavour::NixInstaller | Flavour::DeterminateUpstream => {
            let seen = seen.command(&["/nix/var/nix/profiles/default/bin/nix", "upgrade-nix"]);
            match facts.mac.as_ref().map(Mac::daemon) {
                Some(job) => job.into_iter().fold(seen, |seen, job| {
                    seen.command(&["launchctl", "kickstart", "-k", &format!("system/{}", job.label)])
                }),
                None => seen.command(&["systemctl", "daemon-reload"]).command(&[
                    "systemctl",
                    "restart",
                    "nix-daemon.service",
                ]),
            }
        }
        _ => seen,
    }
}
