//! Ids that are in use although no local file says so: of accounts that a directory service knows, and of containers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::ForeignIds;
use super::machine::As;
use super::reader::Reader;
use crate::types::SubidRange;

/// getent(1) ends so when a key was not found, which is what most keys here are.
const GETENT_ENDS: [i32; 3] = [0, 1, 2];

/// Accounts and groups first, then containers; each once.
pub(crate) fn gather(reader: &Reader<'_>) -> Vec<ForeignIds> {
    let mut found = Vec::new();
    for (database, what) in [("passwd", "account"), ("group", "group")] {
        let local = match database {
            "passwd" => reader.accounts.users.iter().map(|user| user.uid).collect::<Vec<_>>(),
            _ => reader.accounts.groups.iter().map(|group| group.gid).collect(),
        };
        let named = name_service(reader, database).into_iter().filter(|(id, _)| !local.contains(id));
        found.extend(named.filter_map(|(id, name)| {
            Some(ForeignIds { range: SubidRange::new(id, 1)?, holder: format!("the {what} {name}") })
        }));
    }
    if reader.machine.is_live() {
        found.extend(containers(Path::new("/proc")));
    }
    found
}

/// What the name service lists, and what it says of the first id of every slot of the range that builds are to get: Nix
/// asks the same, and refuses to build when it gets an answer (`AutoUserLock::acquire` in `user-lock.cc`).
fn name_service(reader: &Reader<'_>, database: &str) -> BTreeMap<u32, String> {
    let wanted = reader.machine.wanted_ids();
    let slots = (0..wanted.count / SubidRange::SLOT).map(|slot| wanted.start + slot * SubidRange::SLOT);
    let keys = std::iter::once(database.to_owned()).chain(slots.map(|id| id.to_string()));
    let asked = [vec![database.to_owned()], keys.collect()];
    let mut found = BTreeMap::new();
    for args in asked {
        let said = reader.machine.run_for(As::Nobody, "getent", &args, &GETENT_ENDS).unwrap_or_default();
        found.extend(said.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((fields.nth(1)?.parse().ok()?, name))
        }));
    }
    found
}

/// Ids that processes' user namespaces map to others: containers. A map of ids to themselves, as the gate's, takes nothing from anybody.
fn containers(proc: &Path) -> Vec<ForeignIds> {
    let mut found: Vec<ForeignIds> = Vec::new();
    for entry in fs::read_dir(proc).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        for file in ["uid_map", "gid_map"] {
            let map = fs::read_to_string(entry.path().join(file)).unwrap_or_default();
            for range in mapped(&map)
                .filter(|range| !found.iter().any(|known| known.range == *range))
                .collect::<Vec<_>>()
            {
                found.push(ForeignIds { range, holder: format!("a container (pid {name})") });
            }
        }
    }
    found.sort_by_key(|ids| (ids.range.start, ids.range.count));
    found
}

/// The outer ids of a map's lines, `INSIDE OUTSIDE COUNT` (user_namespaces(7)).
fn mapped(map: &str) -> impl Iterator<Item = SubidRange> {
    map.lines().filter_map(|line| {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [inside, outside, count] = numbers[..] else { return None };
        (inside != outside && count > 1).then(|| SubidRange::new(outside, count)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Machine;

    #[test]
    fn the_name_service_is_asked_what_nix_will_ask() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        let range = SubidRange::new(1_048_576, 131_072);
        let machine = Machine::at(dir.path())
            .with_wanted_ids(range)
            .with_output("getent passwd", "root:x:0:0::/root:/bin/sh\nlisted:*:200001:5::/:/bin/sh\n")
            .with_output("getent passwd 1048576 1114112", "hidden:*:1114112:5::/:/bin/sh\n")
            .with_output("getent group", "staff:*:200001:\n");
        let found: Vec<_> = gather(&Reader::new(&machine))
            .into_iter()
            .map(|ids| format!("{} {}", ids.range.start, ids.holder))
            .collect();
        assert_eq!(
            found,
            ["200001 the account listed", "1114112 the account hidden", "200001 the group staff"]
        );
    }

    #[test]
    fn a_containers_map_is_told_from_ours() {
        let proc = tempfile::tempdir().unwrap();
        for (pid, map) in [
            ("1", "0 0 4294967295\n"),
            ("20", "         0    1000000      65536\n"),
            ("21", "0 1000000 65536\n"),
            ("30", "0 997 1\n872415232 872415232 8388608\n"),
        ] {
            fs::create_dir(proc.path().join(pid)).unwrap();
            fs::write(proc.path().join(pid).join("uid_map"), map).unwrap();
        }
        let found: Vec<_> = containers(proc.path()).into_iter().map(|ids| ids.range.start).collect();
        assert_eq!(found, [1_000_000]);
    }
}
