//! The facts of a machine as a table, for text and page.

use std::fmt::Display;

use crate::facts::macos::Mac;
use crate::facts::{Facts, Flavour, Init};
use crate::system::text::printable;

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What is told; empty when it is the same as in the row before.
    pub name: &'static str,
    /// What there is.
    pub value: String,
}

/// The rows of the table.
pub fn machine(facts: &Facts) -> Vec<Row> {
    let mut table = Table::default();
    let kernel = if facts.mac.is_some() { "Darwin" } else { "Linux" };
    table.row("system", format!("{} ({}, {kernel} {})", facts.os.name, facts.os.arch, facts.os.kernel));
    if let Some(container) = &facts.os.container {
        table.row("container", container);
    }
    table.row("init", init(&facts.init));
    table.row("installed by", flavour(&facts.flavour));
    for nix in &facts.nix {
        let version = nix.version.as_ref().map_or("unknown version".to_owned(), ToString::to_string);
        let daemon = if nix.runs_daemon { ", runs the daemon" } else { "" };
        table.row("nix", format!("{version} {} ({}{daemon})", nix.path.display(), nix.provider));
    }
    if let Some(store) = &facts.store {
        table.row(
            "store",
            format!("{} {} mode {:04o}", store.path.display(), owner(store.uid, store.gid), store.mode),
        );
    }
    if let Some(database) = &facts.database {
        let known = |value: Option<&dyn Display>| value.map_or("unknown".to_owned(), ToString::to_string);
        table.row(
            "database",
            format!(
                "{} valid paths, schema {}, integrity {}, owner {}",
                known(database.valid_paths.as_ref().map(|value| value as &dyn Display)),
                known(database.schema.as_ref().map(|value| value as &dyn Display)),
                database.integrity.as_deref().unwrap_or("unknown"),
                user(database.uid),
            ),
        );
    }
    if let Some(group) = &facts.build_users.group {
        table.row("build users", format!("{} in group {group}", facts.build_users.members.len()));
    }
    units(&mut table, facts);
    for file in &facts.nix_conf {
        let settings = file
            .settings
            .as_ref()
            .map_or("missing".to_owned(), |settings| format!("{} settings", settings.len()));
        table.row("nix.conf", format!("{} ({settings}, mode {:04o})", file.path.display(), file.mode));
    }
    for snippet in &facts.shell_snippets {
        let root = if snippet.read_by_root { ", root's shells too" } else { "" };
        table.row(
            "shell",
            format!("{} ({} paths below /nix{root})", snippet.path.display(), snippet.sources.len()),
        );
    }
    for process in &facts.processes {
        table.row(
            "process",
            format!("{} {:?} of {}: {}", process.pid, process.role, user(process.uid), process.command),
        );
    }
    for mount in &facts.mounts {
        let flags = [
            (mount.read_only, "ro"),
            (mount.noexec, "noexec"),
            (mount.nosuid, "nosuid"),
            (mount.network, "network"),
            (mount.idmapped, "idmapped"),
        ];
        let flags: Vec<_> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        table.row(
            "mount",
            format!("{} {} from {} {}", mount.path.display(), mount.fs_type, mount.source, flags.join(",")),
        );
    }
    match &facts.mac {
        Some(mac) => mac_rows(&mut table, mac),
        None => table.row("user namespaces", user_namespaces(facts)),
    }
    for (file, entries) in [("subuid", &facts.subuid), ("subgid", &facts.subgid)] {
        for entry in entries {
            table.row(file, format!("{}: {} to {}", entry.owner, entry.range.start, entry.range.last()));
        }
    }
    for unread in &facts.unread {
        table.row("not read", format!("{}: {}", unread.what, unread.why));
    }
    table.rows
}

#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    last: &'static str,
}

impl Table {
    fn row(&mut self, name: &'static str, value: impl Display) {
        let shown = if name == self.last { "" } else { name };
        self.last = name;
        // Names of files and processes are other people's text.
        let value = printable(&value.to_string());
        self.rows.push(Row { name: shown, value });
    }
}

fn units(table: &mut Table, facts: &Facts) {
    for unit in &facts.units {
        let place = match (&unit.fragment, &unit.real_fragment) {
            (Some(fragment), Some(real)) if fragment != real => {
                format!("{} -> {}", fragment.display(), real.display())
            }
            (Some(fragment), _) => fragment.display().to_string(),
            (None, _) => "no file".to_owned(),
        };
        let account = unit.user.as_ref().map_or(String::new(), |user| format!(", as {user}"));
        table.row(
            "unit",
            format!("{}: {}, {}{account} ({place})", unit.name, unit.active_state, unit.file_state),
        );
        for drop_in in &unit.drop_ins {
            table.row("unit", format!("  with {}", drop_in.path.display()));
        }
    }
}

fn mac_rows(table: &mut Table, mac: &Mac) {
    if let Some(volume) = &mac.volume {
        let owners = if volume.owners_enabled { "owners count" } else { "owners are ignored" };
        let encrypted = match volume.encrypted {
            Some(true) => "encrypted",
            Some(false) => "not encrypted",
            None => "perhaps encrypted",
        };
        table.row(
            "volume",
            format!("{} ({} {}), {owners}, {encrypted}", volume.name, volume.file_system, volume.device),
        );
        if let Some(item) = &volume.keychain_item {
            table.row("keychain", format!("account {}, service {}", item.account, item.service));
        }
    }
    if let Some(synthetic) = &mac.synthetic {
        let target = synthetic.target.as_deref().unwrap_or("a directory to mount on");
        table.row("synthetic.conf", format!("nix: {target}"));
    }
    if let Some(fstab) = &mac.fstab {
        table.row("fstab", &fstab.line);
    }
    for job in &mac.jobs {
        let user = job.user.as_deref().unwrap_or("root");
        let state = match (job.pid, job.loaded) {
            (Some(pid), _) => format!("process {pid}"),
            (None, true) => "loaded".to_owned(),
            (None, false) => "not loaded".to_owned(),
        };
        let disabled = if job.disabled { ", disabled" } else { "" };
        table.row("job", format!("{}: {state}{disabled}, as {user} ({})", job.label, job.path.display()));
    }
}

fn init(init: &Init) -> String {
    match init {
        Init::Systemd { version: Some(version) } => format!("systemd {version}"),
        Init::Systemd { version: None } => "systemd".to_owned(),
        Init::Launchd => "launchd".to_owned(),
        Init::Other { name } => name.clone(),
    }
}

fn flavour(flavour: &Flavour) -> String {
    match flavour {
        Flavour::None => "nobody: there is no Nix".to_owned(),
        Flavour::OfficialMultiUser => "the official script, multi-user".to_owned(),
        Flavour::OfficialSingleUser { owner } => {
            format!("the official script, single-user, for {}", user(*owner))
        }
        Flavour::NixInstaller => "NixOS nix-installer".to_owned(),
        Flavour::DeterminateUpstream => "Determinate's installer, upstream Nix".to_owned(),
        Flavour::DeterminateNix => "Determinate Nix".to_owned(),
        Flavour::Lix => "Lix".to_owned(),
        Flavour::Packages { distribution, packages } => {
            format!("{distribution} packages: {}", packages.join(", "))
        }
        Flavour::NixOs => "NixOS".to_owned(),
        Flavour::NixDarwin => "nix-darwin".to_owned(),
        Flavour::SystemManager => "system-manager".to_owned(),
        Flavour::Unprivileged => "nix-unroot: unprivileged already".to_owned(),
        Flavour::UnprivilegedForeign => "unprivileged already, by other means".to_owned(),
        Flavour::Unknown => "unknown".to_owned(),
    }
}

fn user_namespaces(facts: &Facts) -> String {
    let namespaces = &facts.user_namespaces;
    let probe = match &namespaces.probe {
        Ok(()) => "work here (tried)".to_owned(),
        Err(reason) => format!("do not work here: {reason}"),
    };
    let max = namespaces.max.map_or(String::new(), |max| format!(", at most {max}"));
    let apparmor = if namespaces.apparmor_restricted { ", restricted by AppArmor" } else { "" };
    format!("{probe}{max}{apparmor}")
}

fn owner(uid: u32, gid: u32) -> String {
    let group = users::get_group_by_gid(gid)
        .map_or(gid.to_string(), |group| group.name().to_string_lossy().into_owned());
    format!("{}:{group}", user(uid))
}

fn user(uid: u32) -> String {
    users::get_user_by_uid(uid).map_or(uid.to_string(), |user| user.name().to_string_lossy().into_owned())
}
