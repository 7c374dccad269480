//! What is installed on this machine. Gathering reads and never writes; what could not be read is said in
//! [`Facts::unread`] instead of being left out.

mod access_control;
mod accounts;
mod build_users;
mod builders;
mod child;
mod daemon_files;
mod database;
mod document;
mod flavour;
#[cfg(test)]
mod flavour_tests;
mod foreign_ids;
mod init;
mod machine;
pub mod macos;
mod mounts;
mod nix_binary;
mod nix_conf;
mod nix_paths;
mod os;
mod owners;
mod packages;
mod processes;
mod read_only;
mod reader;
mod root_jobs;
#[cfg(any(test, feature = "checkpoints"))]
pub mod sample;
mod shell;
mod single_user;
mod store;
mod subids;
mod units;
mod userns;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use child::{PROBE_USERNS, READ_DATABASE, RUN_VERSION, child_main};
pub use document::*;
pub use machine::Machine;
pub(crate) use machine::components;
pub use nix_conf::Unsandboxed;
pub(crate) use nix_paths::named as nix_paths_named;
pub use processes::{RawProcess, running as running_processes};
pub(crate) use reader::Reader;
pub(crate) use root_jobs::EXEC;
pub(crate) use shell::startup_files;
pub(crate) use units::{UnitText, all as all_units, program as unit_program};

/// The packages that these paths belong to, as `NAME VERSION`; below `/nix` there are none.
pub fn owning_packages(machine: &Machine, paths: &[PathBuf]) -> BTreeMap<PathBuf, String> {
    let owners = packages::owners(&Reader::new(machine), paths);
    owners
        .into_iter()
        .map(|(path, package)| (path, format!("{} {}", package.name, package.version)))
        .collect()
}

/// Looks at a machine. Nothing is written, anywhere; what needs rights that this process lacks is in [`Facts::unread`].
pub fn gather(machine: &Machine) -> Facts {
    let reader = Reader::new(machine);
    let os = os::gather(&reader);
    let init = init::gather(&reader, &os);
    let mac = (os.family == "macos").then(|| macos::gather(&reader));
    let units = units::gather(&reader, &init);
    let nix_conf = nix_conf::gather(&reader);
    let build_users =
        build_users::gather(&reader, nix_conf::effective(&nix_conf, "build-users-group").as_deref());

    let daemon = mac.as_ref().and_then(|mac| mac.daemon()).and_then(|job| job.program.clone());
    let candidates = nix_binary::candidates(&reader, daemon, &units);
    let binaries = candidates.iter().flat_map(|found| [found.path.clone(), found.real_path.clone()]);
    let fragments = units.iter().filter_map(|unit| unit.fragment.clone());
    let packages = packages::owners(&reader, &binaries.chain(fragments).collect::<Vec<_>>());
    let nix = nix_binary::gather(&reader, candidates, &packages);

    let builders = builders::gather(&reader, &nix_conf);
    let daemon_files = daemon_files::gather(&reader, &nix_conf, &builders, &units);

    let store = store::gather(&reader);
    let database = database::gather(&reader);
    let clues = flavour::Clues {
        os: &os,
        nix: &nix,
        store: store.as_ref(),
        database: database.as_ref(),
        units: &units,
        build_users: &build_users,
        packages: &packages,
        mac: mac.as_ref(),
    };
    let flavour = flavour::gather(&reader, &clues);
    let subuid = subids::gather(&reader, "/etc/subuid");
    let daemon_user = units.iter().filter(|unit| unit.name.as_str().starts_with("nix-daemon"));
    let daemon_user = daemon_user.filter_map(|unit| unit.user.as_deref()).next();
    Facts {
        single_user: single_user::gather(&reader, &flavour, store.as_ref(), &nix),
        flavour,
        processes: processes::gather(&reader, &build_users, &subuid, &nix_conf, daemon_user),
        shell_snippets: shell::gather(&reader),
        mounts: mounts::gather(&reader),
        user_namespaces: userns::gather(&reader),
        protected_hardlinks: reader.text("/proc/sys/fs/protected_hardlinks").map(|value| value.trim() != "0"),
        subgid: subids::gather(&reader, "/etc/subgid"),
        owners: owners::gather(&reader, &daemon_files),
        root_jobs: root_jobs::gather(&reader),
        access_control: access_control::gather(&reader),
        foreign_ids: foreign_ids::gather(&reader),
        read_only: read_only::gather(&reader),
        backup_free_bytes: store::free_for_backups(&reader),
        users: reader.accounts.users.clone(),
        groups: reader.accounts.groups.clone(),
        os,
        init,
        nix,
        store,
        database,
        build_users,
        units,
        nix_conf,
        daemon_files,
        builders,
        subuid,
        mac,
        unread: reader.into_unread(),
    }
}

impl Facts {
    /// Owner and mode of a path, when it exists and was asked for.
    pub fn owner_of(&self, path: impl AsRef<Path>) -> Option<&PathOwner> {
        self.owners.iter().find(|owner| owner.path == path.as_ref())
    }

    /// A unit by its name.
    pub fn unit(&self, name: &str) -> Option<&Unit> {
        self.units.iter().find(|unit| unit.name.as_str() == name)
    }
}
