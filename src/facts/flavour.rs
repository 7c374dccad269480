//! Who put Nix here, by the marks that each installer leaves, the most telling first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::macos::Mac;
use super::packages::Package;
use super::reader::Reader;
use super::{BuildUsers, Database, Flavour, NixBinary, Os, Store, Unit, macos, nix_binary};
use crate::platform::paths::{GATE, LIBEXEC_DIR, NIX_CONF};

/// What the marks are looked for in.
#[derive(Debug)]
pub(crate) struct Clues<'c> {
    pub os: &'c Os,
    pub nix: &'c [NixBinary],
    pub store: Option<&'c Store>,
    pub database: Option<&'c Database>,
    pub units: &'c [Unit],
    pub build_users: &'c BuildUsers,
    pub packages: &'c BTreeMap<PathBuf, Package>,
    pub mac: Option<&'c Mac>,
}

/// The first kind whose marks are there. Systems that own all of `/etc` come first, then forks of the daemon, then
/// installers by what they alone leave behind.
pub(crate) fn gather(reader: &Reader<'_>, clues: &Clues<'_>) -> Flavour {
    whole_system(reader, clues)
        .or_else(|| unprivileged(clues))
        .or_else(|| fork(reader, clues))
        .or_else(|| single_user(clues))
        .or_else(|| packages(clues))
        .or_else(|| installer(reader, clues))
        .or_else(|| script(clues))
        .unwrap_or(if clues.store.is_none() && clues.nix.is_empty() && !has_daemon(clues) {
            Flavour::None
        } else {
            Flavour::Unknown
        })
}

fn whole_system(reader: &Reader<'_>, clues: &Clues<'_>) -> Option<Flavour> {
    let any = |paths: &[&str]| paths.iter().any(|path| reader.machine.lstat(Path::new(path)).is_ok());
    if clues.os.id == "nixos" || any(&["/etc/NIXOS"]) {
        return Some(Flavour::NixOs);
    }
    let darwin =
        ["/run/current-system/darwin-version", "/Library/LaunchDaemons/org.nixos.activate-system.plist"];
    if any(&darwin) {
        return Some(Flavour::NixDarwin);
    }
    let manager = [
        "/nix/var/nix/profiles/system-manager-profiles",
        "/var/lib/system-manager",
        "/run/system-manager",
        "/etc/.system-manager-static",
        "/etc/systemd/system/system-manager.target",
    ];
    any(&manager).then_some(Flavour::SystemManager)
}

/// Ours: our gate in a unit of the daemon, and a state that really belongs to somebody else than root. One without
/// the other is a run that was interrupted: then it is still what it was before.
fn unprivileged(clues: &Clues<'_>) -> Option<Flavour> {
    let gate = Path::new(LIBEXEC_DIR).join(GATE);
    let runs_gate = |unit: &Unit| unit.exec_start.as_ref() == Some(&gate);
    // On a Mac the store's directory is the daemon's own: its group is that of builds.
    let keeps_store = |uid: u32| uid == 0 || clues.mac.is_some();
    let owned = clues.store.is_some_and(|store| keeps_store(store.uid))
        && clues.database.is_none_or(|db| db.uid != 0);
    let runs_as_user = |mac: &Mac| mac.daemon().is_some_and(|job| job.is_ours() && job.user.is_some());
    if daemon_units(clues).any(runs_gate) || clues.mac.is_some_and(runs_as_user) {
        return owned.then_some(Flavour::Unprivileged);
    }
    let foreign = |unit: &Unit| {
        let user = unit.user.as_deref().is_some_and(|user| user != "root" && user != "0");
        let wrapper = unit.exec_start.as_ref().is_some_and(|program| program.ends_with("nix-nswrapper"));
        unit.name.as_str().ends_with(".service") && (user || wrapper)
    };
    let foreign_job =
        |mac: &Mac| mac.daemon().is_some_and(|job| job.user.as_deref().is_some_and(|user| user != "root"));
    (daemon_units(clues).any(foreign) || clues.mac.is_some_and(foreign_job))
        .then_some(Flavour::UnprivilegedForeign)
}

/// Determinate Nix and Lix run other daemons.
fn fork(reader: &Reader<'_>, clues: &Clues<'_>) -> Option<Flavour> {
    let determinate = reader.machine.exists("/usr/local/bin/determinate-nixd")
        || clues.units.iter().any(|unit| {
            unit.exec_start.as_ref().is_some_and(|program| program.ends_with("determinate-nixd"))
        })
        || clues.mac.is_some_and(|mac| mac.job(macos::DETERMINATE_DAEMON).is_some())
        || daemon_name(clues).is_some_and(|name| name.starts_with("determinate-nix-"));
    if determinate {
        return Some(Flavour::DeterminateNix);
    }
    let lix_package =
        |binary: &NixBinary| binary.provider.split(' ').nth(1).is_some_and(|name| name.starts_with("lix"));
    let lix = reader.machine.exists("/nix/lix-installer")
        || daemon_name(clues).is_some_and(|name| name.starts_with("lix-"))
        || clues.nix.iter().take(1).any(lix_package);
    lix.then_some(Flavour::Lix)
}

/// A distribution's packages: they own the Nix that the daemon runs.
fn packages(clues: &Clues<'_>) -> Option<Flavour> {
    let first = clues.nix.first()?;
    let owner = |path: &PathBuf| clues.packages.get(path);
    let daemon = owner(&first.real_path).or_else(|| owner(&first.path))?;
    let units = daemon_units(clues).filter_map(|unit| owner(unit.fragment.as_ref()?));
    let mut packages: Vec<_> = units.chain([daemon]).collect();
    packages.sort();
    packages.dedup();
    Some(Flavour::Packages {
        distribution: daemon.distribution().to_owned(),
        packages: packages.iter().map(|package| format!("{} {}", package.name, package.version)).collect(),
    })
}

/// NixOS/nix-installer and Determinate's, which share their layout: told apart by the header of `nix.conf` and by settings
/// that only one of them has in its receipt.
fn installer(reader: &Reader<'_>, clues: &Clues<'_>) -> Option<Flavour> {
    let marks = ["/nix/receipt.json", "/nix/nix-installer"].iter().any(|path| reader.machine.exists(path));
    if !marks || clues.store.is_none_or(|store| store.uid != 0) {
        return None;
    }
    let settings = reader
        .text("/nix/receipt.json")
        .and_then(|text| serde_json::from_str::<Receipt>(&text).ok())
        .map(|receipt| receipt.planner.settings)
        .unwrap_or_default();
    if settings.get("determinate_nix") == Some(&serde_json::Value::Bool(true)) {
        return Some(Flavour::DeterminateNix);
    }
    let header = reader.text(NIX_CONF).unwrap_or_default();
    let header = header.lines().find(|line| line.starts_with("# Generated by ")).unwrap_or_default();
    if header.contains("/NixOS/nix-installer") || settings.contains_key("add_channel") {
        return Some(Flavour::NixInstaller);
    }
    let determinate =
        header.contains("/DeterminateSystems/nix-installer") || settings.contains_key("determinate_nix");
    determinate.then_some(Flavour::DeterminateUpstream)
}

/// A store with its database that a person owns, and nothing that starts a daemon, wherever the programs come from: a package of
/// Nix alone is used in this way, too.
fn single_user(clues: &Clues<'_>) -> Option<Flavour> {
    let owner = clues.store.map(|store| store.uid).filter(|owner| *owner != 0)?;
    let same = clues.database.is_none_or(|database| database.uid == owner);
    let single = same && !has_daemon(clues);
    single.then_some(Flavour::OfficialSingleUser { owner })
}

/// The official script leaves no mark of its own but a daemon in the store with build users.
fn script(clues: &Clues<'_>) -> Option<Flavour> {
    let store = clues.store?;
    let of_job = clues.mac.and_then(|mac| mac.daemon()?.program.as_ref());
    let mut daemons = daemon_units(clues).filter_map(|unit| unit.exec_start.as_ref()).chain(of_job);
    let in_store = daemons.next().is_some_and(|program| program.starts_with("/nix"));
    (store.uid == 0 && in_store && clues.build_users.group.is_some()).then_some(Flavour::OfficialMultiUser)
}

/// Units that start a daemon or listen for one, and are not masked.
fn daemon_units<'c>(clues: &'c Clues<'_>) -> impl Iterator<Item = &'c Unit> {
    let daemon = |unit: &&Unit| unit.name.as_str().starts_with("nix-daemon") && unit.file_state != "masked";
    clues.units.iter().filter(daemon)
}

fn has_daemon(clues: &Clues<'_>) -> bool {
    daemon_units(clues).next().is_some() || clues.mac.is_some_and(|mac| mac.daemon().is_some())
}

/// Name of the store path whose Nix the daemon runs, or of the first one found.
fn daemon_name(clues: &Clues<'_>) -> Option<String> {
    nix_binary::store_name(&clues.nix.first()?.real_path)
}

/// As much of an installer's receipt as telling them apart takes. Their schemas change from release to release.
#[derive(Default, Deserialize)]
struct Receipt {
    #[serde(default)]
    planner: Planner,
}

#[derive(Default, Deserialize)]
struct Planner {
    #[serde(default)]
    settings: serde_json::Map<String, serde_json::Value>,
}
