//! What a plan has to know of the person who owns the store of a single-user installation.

use toml::{Table, Value};

use crate::facts::{Facts, SingleUser};

/// Directories that root takes before anything in them changes hands, from the top: a path below means what it says only when
/// nobody else can rename what is above.
const TAKEN: [&str; 7] = [
    "/nix",
    "/nix/store",
    "/nix/var",
    "/nix/var/nix",
    "/nix/var/nix/daemon-socket",
    "/nix/var/nix/gc-roots-socket",
    "/nix/var/log",
];
/// Below the state directory, where root binds sockets.
const SOCKETS: [&str; 2] = ["daemon-socket", "gc-roots-socket"];

/// The person, for people.
pub fn name(person: &SingleUser) -> String {
    person.name.clone().unwrap_or_else(|| format!("uid {}", person.uid))
}

/// Those of [`TAKEN`] that are the person's.
pub fn taken_directories(facts: &Facts) -> Vec<String> {
    TAKEN.iter().filter(|path| is_the_persons(facts, path)).map(|path| (*path).to_owned()).collect()
}

/// Those of `paths` that are not the person's: what is not there has to be made, and what is root's is checked.
pub fn not_the_persons(facts: &Facts, paths: &[&str]) -> Vec<String> {
    paths.iter().filter(|path| !is_the_persons(facts, path)).map(|path| (*path).to_owned()).collect()
}

/// Uids besides root's whose files change hands.
pub fn taken_uids(facts: &Facts) -> Value {
    let build_users = facts.build_users.members.iter().map(|(_, uid)| *uid);
    let person = facts.single_user.as_ref().map(|person| person.uid);
    Value::Array(build_users.chain(person).map(|uid| Value::Integer(uid.into())).collect())
}

/// Whose most of the store is, as the action `reown` takes it.
pub fn plain_owner(person: &SingleUser) -> Value {
    let number = |id: u32| Value::Integer(id.into());
    Value::Table(Table::from_iter([
        ("uid".to_owned(), number(person.uid)),
        ("gid".to_owned(), number(person.gid)),
    ]))
}

/// What stays as it is below the state directory: the sockets' directories, and the person's own among profiles and roots.
pub fn kept_below_state(facts: &Facts) -> Vec<String> {
    let own = facts.single_user.iter().flat_map(|person| &person.own_directories);
    let own = own.map(|path| path.to_string_lossy().into_owned());
    SOCKETS.into_iter().map(str::to_owned).chain(own).collect()
}

fn is_the_persons(facts: &Facts, path: &str) -> bool {
    let person = facts.single_user.as_ref().map(|person| person.uid);
    person.is_some() && facts.owner_of(path).map(|owner| owner.uid) == person
}
