//! Who does what with which rights, and who owns what: a picture of a machine now, and of the same machine after a plan.

use std::path::{Path, PathBuf};

use crate::actions::Action;
use crate::facts::{Facts, ProcessRole, Unit};
use crate::plan::Plan;

/// How much somebody may do, for the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Everything.
    Root,
    /// Some of root's rights.
    Some,
    /// Nothing that an ordinary user may not.
    None,
}

/// Who does a part of the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The part.
    pub role: &'static str,
    /// The program.
    pub program: String,
    /// The account it runs under.
    pub account: String,
    /// What it may do.
    pub rights: String,
    /// How much that is.
    pub level: Level,
}

/// Who owns a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// The path.
    pub path: String,
    /// Owner and group.
    pub owner: String,
    /// Whether that is root.
    pub level: Level,
}

/// A machine at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scene {
    /// Who does what, from the first that a user's command meets.
    pub actors: Vec<Actor>,
    /// Who owns what.
    pub owned: Vec<Owned>,
}

const ACCEPTS: &str = "accepts connections";
const SERVES: &str = "serves a connection, writes the store";
const BUILDS: &str = "builds";
const COLLECTS: &str = "looks for GC roots everywhere";
const EVERYTHING: &str = "every right of root";
const NOTHING: &str = "no right of root";
const INSIDE: &str = "no right of root outside its namespace";
const ONE_EACH: &str = "a uid for each build, no right of root";

/// Paths whose owner is told; the one below the store stands for all that is in it.
const PATHS: [&str; 6] = [
    "/nix/store",
    CONTENTS,
    "/nix/var/nix/db",
    "/nix/var/nix/gcroots",
    "/nix/var/nix/profiles",
    "/nix/var/nix/daemon-socket",
];
const CONTENTS: &str = "/nix/store/*";

/// The machine as it is.
pub fn now(facts: &Facts) -> Scene {
    Scene {
        actors: actors_now(facts),
        owned: PATHS.iter().filter_map(|path| Some(owned(facts, path, ids_of(facts, path)?))).collect(),
    }
}

/// The machine after the plan; `None` when the plan hands nothing over.
pub fn after(facts: &Facts, plan: &Plan) -> Option<Scene> {
    let gate = unit_of(plan, "nix-daemon-gate.service")?;
    let scanner = unit_of(plan, "nix-root-scan.service")?;
    let range = plan.steps.iter().find_map(|step| match &step.action {
        Action::SubidLine(line) if line.path == Path::new("/etc/subuid") => {
            Some((line.start, line.start.saturating_add(line.count.saturating_sub(1))))
        }
        _ => None,
    })?;
    let actors = unprivileged(&gate, &scanner, Some(range));
    let owned = PATHS.iter().filter_map(|path| owned_after(facts, plan, path)).collect();
    Some(Scene { actors, owned })
}

/// A unit, as far as it matters here.
struct Service {
    user: String,
    capabilities: String,
}

fn unit_of(plan: &Plan, name: &str) -> Option<Service> {
    let text = plan.steps.iter().find_map(|step| match &step.action {
        Action::WriteFile(file) if file.path.ends_with(name) => Some(file.text.as_str()),
        _ => None,
    })?;
    let value =
        |key: &str| text.lines().rev().find_map(|line| line.trim().strip_prefix(key)).map(str::to_owned);
    Some(Service { user: value("User=")?, capabilities: value("AmbientCapabilities=").unwrap_or_default() })
}

/// The gate's way, in a plan or on a machine.
fn unprivileged(gate: &Service, scanner: &Service, range: Option<(u32, u32)>) -> Vec<Actor> {
    let uids =
        range.map_or("uids of their own".to_owned(), |(first, last)| format!("uids {first} to {last}"));
    vec![
        service(ACCEPTS, "nix-daemon-gate", gate),
        actor(SERVES, "nix-daemon in a user namespace", &gate.user, INSIDE, Level::None),
        actor(BUILDS, "sandboxed builds", &uids, ONE_EACH, Level::None),
        service(COLLECTS, "nix-root-scan", scanner),
    ]
}

fn service(role: &'static str, program: &str, service: &Service) -> Actor {
    let (rights, level) = match (service.user.as_str(), service.capabilities.as_str()) {
        ("root" | "0", _) => (EVERYTHING.to_owned(), Level::Root),
        (_, "") => (NOTHING.to_owned(), Level::None),
        (_, capabilities) => (capabilities.to_lowercase(), Level::Some),
    };
    actor(role, program, &service.user, &rights, level)
}

fn actor(role: &'static str, program: &str, account: &str, rights: &str, level: Level) -> Actor {
    let (program, account, rights) = (program.to_owned(), account.to_owned(), rights.to_owned());
    Actor { role, program, account, rights, level }
}

fn actors_now(facts: &Facts) -> Vec<Actor> {
    let service = |unit: &Unit| Service {
        user: unit.user.clone().unwrap_or_else(|| "root".to_owned()),
        capabilities: unit.capabilities.clone().unwrap_or_default(),
    };
    let live =
        |name: &str| facts.unit(name).filter(|unit| unit.fragment.is_some() && unit.file_state != "masked");
    if let (Some(gate), Some(scanner)) = (live("nix-daemon-gate.service"), live("nix-root-scan.service")) {
        let gate = service(gate);
        let range = facts.subuid.iter().find(|entry| entry.owner == gate.user);
        let range = range.map(|entry| (entry.range.start, entry.range.last()));
        return unprivileged(&gate, &service(scanner), range);
    }
    let unit = live("nix-daemon.service").map(|unit| service(unit).user);
    let process = facts.processes.iter().find(|process| process.role == ProcessRole::Daemon);
    let Some(user) = unit.or_else(|| process.map(|process| user_name(facts, process.uid))) else {
        return without_daemon(facts);
    };
    let rights = |role, program| match user.as_str() {
        "root" | "0" => actor(role, program, &user, EVERYTHING, Level::Root),
        _ => actor(role, program, &user, NOTHING, Level::None),
    };
    vec![
        rights(ACCEPTS, "nix-daemon"),
        rights(SERVES, "nix-daemon, a process for each"),
        builds(facts, &user),
        rights(COLLECTS, "nix-daemon"),
    ]
}

fn builds(facts: &Facts, user: &str) -> Actor {
    let members = &facts.build_users.members;
    if facts.effective_setting("auto-allocate-uids").as_deref() == Some("true") {
        return actor(BUILDS, "builds", "uids of their own", ONE_EACH, Level::None);
    }
    let level = if user == "root" { Level::Root } else { Level::None };
    match members.as_slice() {
        [] => actor(BUILDS, "builds", user, "the same as the daemon", level),
        [(one, _)] => actor(BUILDS, "builds", one, NOTHING, Level::None),
        [(first, _), .., (last, _)] => {
            let account = format!("{first} to {last}");
            actor(BUILDS, &format!("builds, up to {}", members.len()), &account, NOTHING, Level::None)
        }
    }
}

/// Every command works on the store itself.
fn without_daemon(facts: &Facts) -> Vec<Actor> {
    let Some(store) = facts.store.as_ref().filter(|_| !facts.nix.is_empty()) else { return Vec::new() };
    let (rights, level) = if store.uid == 0 { (EVERYTHING, Level::Root) } else { (NOTHING, Level::None) };
    vec![actor(SERVES, "nix, without a daemon", &user_name(facts, store.uid), rights, level)]
}

/// Owner and group now. What is in the store is the database's owner's: the same process writes both.
fn ids_of(facts: &Facts, path: &str) -> Option<(u32, u32)> {
    if path == CONTENTS {
        let uid = facts.database.as_ref()?.uid;
        let group = facts.users.iter().find(|user| user.uid == uid).map_or(0, |user| user.gid);
        return Some((uid, group));
    }
    facts.owner_of(path).map(|owner| (owner.uid, owner.gid))
}

fn owned(facts: &Facts, path: &str, (uid, gid): (u32, u32)) -> Owned {
    named(path, &user_name(facts, uid), &group_name(facts, gid))
}

fn named(path: &str, user: &str, group: &str) -> Owned {
    let level = if user == "root" { Level::Root } else { Level::None };
    Owned { path: path.to_owned(), owner: format!("{user}:{group}"), level }
}

/// What the last step that is about this path leaves. A plan for a machine without Nix makes them all.
fn owned_after(facts: &Facts, plan: &Plan, path: &str) -> Option<Owned> {
    let before = ids_of(facts, path);
    let mut owner = before.map(|ids| owned(facts, path, ids));
    for step in &plan.steps {
        match &step.action {
            Action::CreateDirectory(made) if made.path == Path::new(path) && before.is_none() => {
                owner = Some(named(path, &made.owner, &made.group));
            }
            Action::SetOwner(set) if set.path == Path::new(path) => {
                owner = Some(named(path, &set.owner, &set.group));
            }
            Action::Reown(reown)
                if before.is_none_or(|(uid, _)| uid == 0 || reown.also_from.contains(&uid)) =>
            {
                let path_buf = PathBuf::from(path);
                let inside = path_buf.strip_prefix(&reown.root).is_ok_and(|below| {
                    (reown.include_root || below.as_os_str() != "")
                        && !reown.skip.iter().any(|skip| below.starts_with(skip))
                });
                if inside {
                    owner = Some(named(path, &reown.user, &reown.group));
                }
            }
            _ => {}
        }
    }
    owner
}

fn user_name(facts: &Facts, uid: u32) -> String {
    facts.users.iter().find(|user| user.uid == uid).map_or_else(|| uid.to_string(), |user| user.name.clone())
}

fn group_name(facts: &Facts, gid: u32) -> String {
    facts
        .groups
        .iter()
        .find(|group| group.gid == gid)
        .map_or_else(|| gid.to_string(), |group| group.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Flavour;
    use crate::facts::sample::debian_sample;
    use crate::plan::Options;

    fn owner<'s>(scene: &'s Scene, path: &str) -> &'s str {
        scene.owned.iter().find(|owned| owned.path == path).map_or("-", |owned| owned.owner.as_str())
    }

    #[test]
    fn root_does_everything_before_and_nothing_after() {
        let facts = debian_sample();
        let before = now(&facts);
        let levels: Vec<_> = before.actors.iter().map(|actor| actor.level).collect();
        assert_eq!(levels, [Level::Root, Level::Root, Level::None, Level::Root]);
        assert_eq!(before.actors[2].account, "nixbld1 to nixbld10");
        assert_eq!(owner(&before, "/nix/var/nix/profiles"), "root:root");

        let plan = Plan::make(
            &facts,
            &Options { nix_user: "store".into(), nix_group: "store".into(), ..Options::default() },
        )
        .unwrap();
        let after = after(&facts, &plan).unwrap();
        assert!(after.actors.iter().all(|actor| actor.level != Level::Root));
        assert_eq!(
            (after.actors[0].account.as_str(), after.actors[0].rights.as_str()),
            ("store", "cap_setuid cap_setgid")
        );
        assert_eq!(after.actors[2].account, "uids 872415232 to 880803839");
        assert_eq!(after.actors[3].rights, "cap_dac_read_search cap_sys_ptrace");
        for (path, expected) in [
            ("/nix/store", "root:store"),
            (CONTENTS, "store:store"),
            ("/nix/var/nix/db", "store:store"),
            ("/nix/var/nix/gcroots", "store:store"),
            ("/nix/var/nix/profiles", "store:store"),
            ("/nix/var/nix/daemon-socket", "root:nix-users"),
        ] {
            assert_eq!(owner(&after, path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_drawn() {
        let mut facts = debian_sample();
        (facts.flavour, facts.store, facts.database) = (Flavour::None, None, None);
        (facts.units, facts.processes, facts.owners, facts.nix) = (vec![], vec![], vec![], vec![]);
        assert_eq!(now(&facts), Scene::default());
        let archive = crate::archive::release_for("x86_64-linux").unwrap().unwrap();
        let archive = Some(crate::archive::Source { from: archive.url, sha256: archive.sha256 });
        let options = Options { purpose: crate::plan::Purpose::Install, archive, ..Options::default() };
        let after = after(&facts, &Plan::make(&facts, &options).unwrap()).unwrap();
        assert_eq!(owner(&after, "/nix/store"), "root:nix");
        assert_eq!(after.actors.len(), 4);
    }

    #[test]
    fn a_migrated_machine_is_drawn_from_its_units() {
        let mut facts = debian_sample();
        facts.flavour = Flavour::Unprivileged;
        facts.units[0].file_state = "masked".to_owned();
        for (name, user, capabilities) in [
            ("nix-daemon-gate.service", "nix", Some("CAP_SETUID CAP_SETGID")),
            ("nix-root-scan.service", "scan", None),
        ] {
            let mut unit = facts.units[0].clone();
            unit.name = crate::types::UnitName::parse(name).unwrap();
            unit.file_state = "static".to_owned();
            (unit.user, unit.capabilities) = (Some(user.to_owned()), capabilities.map(str::to_owned));
            facts.units.push(unit);
        }
        facts.subuid = crate::types::parse_subid_file("nix:1000000:65536\n");
        let scene = now(&facts);
        let accounts: Vec<_> = scene.actors.iter().map(|actor| actor.account.as_str()).collect();
        assert_eq!(accounts, ["nix", "nix", "uids 1000000 to 1065535", "scan"]);
        assert_eq!(scene.actors[0].level, Level::Some);
        assert_eq!(scene.actors[3].level, Level::None);
    }
}
