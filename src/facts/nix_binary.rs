//! Every Nix on the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::child::RUN_VERSION;
use super::machine::As;
use super::packages::Package;
use super::reader::Reader;
use super::{NixBinary, Unit};
use crate::types::{NixVersion, STORE_DIR, StorePath};

/// Directories where a Nix may lie, besides the one the daemon's unit names.
const DIRECTORIES: [&str; 8] = [
    "/nix/var/nix/profiles/default/bin",
    "/run/current-system/sw/bin",
    "/usr/bin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/local/sbin",
    "/opt/nix/bin",
    "/root/.nix-profile/bin",
];
/// The same in the home of the person who owns the store, where one does.
const OWNERS_LINKS: [&str; 2] = [".nix-profile/bin", ".local/state/nix/profile/bin"];
/// Names of store paths that hold a Nix, the longest first.
const PACKAGE_NAMES: [&str; 7] =
    ["determinate-nix-", "nix-everything-", "nix-super-", "nix-cli-", "nix-daemon-", "lix-", "nix-"];

/// A Nix before its version is asked.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub path: PathBuf,
    pub real_path: PathBuf,
    pub runs_daemon: bool,
}

/// The Nix that `daemon` or the daemon's unit names first, then the others; two names of one file in one directory count once.
pub(crate) fn candidates(reader: &Reader<'_>, daemon: Option<PathBuf>, units: &[Unit]) -> Vec<Candidate> {
    let of_unit = units
        .iter()
        .filter(|unit| unit.name.as_str() == "nix-daemon.service" && unit.file_state != "masked")
        .find_map(|unit| unit.exec_start.clone());
    let owner = reader.path_owner(STORE_DIR).map(|owner| owner.uid).filter(|uid| *uid != 0);
    let (owners, others): (Vec<_>, Vec<_>) =
        reader.accounts.users.iter().partition(|user| Some(user.uid) == owner);
    // With `use-xdg-base-directories` the link of a profile lies elsewhere.
    let of_owner = owners.iter().flat_map(|user| OWNERS_LINKS.map(|link| user.home.join(link)));
    let people = others.iter().filter(|user| user.uid >= 1000 && user.home.starts_with("/home"));
    let profiles = of_owner.chain(people.map(|user| user.home.join(OWNERS_LINKS[0])));
    let directories: Vec<_> = DIRECTORIES.iter().map(PathBuf::from).chain(profiles).collect();
    let in_directory = |directory: &PathBuf| {
        ["nix-daemon", "nix"].iter().map(|name| directory.join(name)).find(|path| reader.machine.exists(path))
    };
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    let others = directories.iter().filter_map(in_directory).map(|path| (path, false));
    for (path, runs_daemon) in daemon.or(of_unit).into_iter().map(|path| (path, true)).chain(others) {
        let Ok(real_path) = reader.machine.real(&path) else { continue };
        let directory = path.parent().and_then(|parent| reader.machine.real(parent).ok());
        if seen.insert((directory, real_path.clone())) {
            found.push(Candidate { path, real_path, runs_daemon });
        }
    }
    found
}

pub(crate) fn gather(
    reader: &Reader<'_>,
    candidates: Vec<Candidate>,
    packages: &BTreeMap<PathBuf, Package>,
) -> Vec<NixBinary> {
    let describe = |candidate: Candidate| {
        let package = packages.get(&candidate.real_path).or_else(|| packages.get(&candidate.path));
        let version = package
            .and_then(|package| NixVersion::parse(package.upstream_version()))
            .or_else(|| store_name(&candidate.real_path).and_then(|name| version_in_name(&name)))
            .or_else(|| ask(reader, &candidate.real_path));
        let provider = package.map_or_else(
            || provider(&candidate.path),
            |package| format!("{}: {} {}", package.manager, package.name, package.version),
        );
        let Candidate { path, real_path, runs_daemon } = candidate;
        NixBinary { path, real_path, version, provider, runs_daemon }
    };
    candidates.into_iter().map(describe).collect()
}

/// Name and version of the store path that holds `path`: `nix-2.34.8`.
pub(crate) fn store_name(path: &Path) -> Option<String> {
    StorePath::containing(path).and_then(|store_path| store_path.base_name().get(33..).map(str::to_owned))
}

fn version_in_name(name: &str) -> Option<NixVersion> {
    let version = PACKAGE_NAMES.iter().find_map(|prefix| name.strip_prefix(prefix))?;
    NixVersion::parse(version)
}

/// Asks the program itself, in a child under limits, as it may be anybody's. `nix (Nix) 2.34.8`
///
/// The child is `nobody` where this process is root. Where it is not, the child has the caller's rights, and what a third one put
/// somewhere (`~/.nix-profile/bin/nix`) must not run with them.
fn ask(reader: &Reader<'_>, program: &Path) -> Option<NixVersion> {
    let me = geteuid();
    if reader.machine.is_live()
        && !me.is_root()
        && let Some(why) = anothers(reader, program, me.as_raw())
    {
        reader.note(format!("{} --version", program.display()), format!("{why} (run as root to ask it)"));
        return None;
    }
    let helper = reader.machine.helper().to_string_lossy().into_owned();
    let said = if reader.machine.is_live() {
        reader.machine.run(As::Helper, &helper, &[RUN_VERSION.as_ref(), program.as_os_str()])
    } else {
        reader.machine.run(As::Nobody, &program.to_string_lossy(), &["--version"])
    };
    match said {
        Ok(said) => said.lines().next()?.rsplit(' ').next().and_then(NixVersion::parse),
        Err(why) => {
            reader.note(format!("{} --version", program.display()), why);
            None
        }
    }
}

/// Why somebody other than root and `me` could have chosen what lies at `program`, which no link is on the way to.
fn anothers(reader: &Reader<'_>, program: &Path, me: u32) -> Option<String> {
    program.ancestors().find_map(|part| {
        let name = part.display();
        let Ok(found) = reader.machine.lstat(part) else { return Some(format!("cannot look at {name}")) };
        let (uid, _) = reader.machine.owner(part, &found);
        // In a sticky directory an entry is its owner's, who is looked at, too.
        let others = found.mode() & 0o022 != 0 && !(found.is_dir() && found.mode() & 0o1000 != 0);
        match (uid == 0 || uid == me, others) {
            (false, _) => Some(format!("{name} belongs to uid {uid}, and would run with your rights")),
            (_, true) => Some(format!("others can write to {name}, and it would run with your rights")),
            _ => None,
        }
    })
}

/// Who provides a Nix that no package owns.
fn provider(path: &Path) -> String {
    for prefix in ["/nix/var/nix/profiles/default", "/run/current-system", "/usr/local"] {
        if path.starts_with(prefix) {
            return prefix.to_owned();
        }
    }
    let directory = path.parent().unwrap_or(path);
    let above_bin = directory.parent().filter(|_| directory.ends_with("bin"));
    above_bin.unwrap_or(directory).display().to_string()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::facts::Machine;

    #[test]
    fn a_program_that_a_third_one_chose_is_not_run_with_the_callers_rights() {
        const ME: u32 = 1000;
        let dir = tempfile::tempdir().unwrap();
        let set = |path: &str, mode| {
            fs::set_permissions(dir.path().join(path), Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir_all(dir.path().join("home/bob/bin")).unwrap();
        fs::write(dir.path().join("home/bob/bin/nix"), "").unwrap();
        for path in [".", "home", "home/bob", "home/bob/bin", "home/bob/bin/nix"] {
            set(path, 0o755);
        }
        let why = |owners: &[(&str, u32)]| {
            let roots = Machine::at(dir.path()).owned_by_root();
            let owned = |machine: Machine, (path, uid): &(&str, u32)| machine.with_owner(path, *uid, *uid);
            let machine = owners.iter().fold(roots, owned);
            anothers(&Reader::new(&machine), Path::new("/home/bob/bin/nix"), ME).unwrap_or_default()
        };
        assert_eq!(why(&[]), "");
        assert_eq!(why(&[("/home/bob/bin/nix", ME), ("/home/bob", ME)]), "");
        assert!(why(&[("/home/bob/bin/nix", 1001)]).starts_with("/home/bob/bin/nix belongs to uid 1001"));
        assert!(why(&[("/home/bob", 1001)]).starts_with("/home/bob belongs to uid 1001"));
        for (path, mode, weak) in [
            ("home", 0o777, true),
            ("home", 0o1777, false),
            ("home", 0o755, false),
            ("home/bob/bin", 0o775, true),
            ("home/bob/bin", 0o755, false),
            ("home/bob/bin/nix", 0o1757, true),
        ] {
            set(path, mode);
            let why = why(&[]);
            assert_eq!(
                why.starts_with(&format!("others can write to /{path},")),
                weak,
                "{path} {mode:o}: {why}"
            );
        }
    }

    #[test]
    fn a_store_path_tells_its_version() {
        let rows = [
            ("nix-2.34.8", Some("2.34.8")),
            ("nix-cli-2.35.0pre20260101_abcdef", Some("2.35.0pre20260101_abcdef")),
            ("lix-2.93.1", Some("2.93.1")),
            ("nix-index-0.1.2", None),
            ("user-environment", None),
        ];
        for (name, version) in rows {
            let path = PathBuf::from(format!("/nix/store/{}-{name}/bin/nix", "0".repeat(32)));
            let found = store_name(&path).and_then(|name| version_in_name(&name));
            assert_eq!(found.map(|version| version.to_string()).as_deref(), version, "{name}");
        }
        assert_eq!(store_name(Path::new("/usr/bin/nix")), None);
    }
}
