//! Accounts, groups and ids.

use std::collections::BTreeSet;

use super::Severity::{Blocker, Info, Warning};
use super::{Check, Options, Seen};
use crate::facts::{Account, Facts, Flavour};
use crate::types::SubidRange;

/// Ids that systemd leaves to containers and user namespaces end here (`docs/UIDS-GIDS.md` of systemd).
const LAST_CONTAINER_ID: u32 = 0x6fff_ffff;
/// They begin here.
const FIRST_CONTAINER_ID: u32 = 0x0008_0000;

pub(super) const CHECKS: &[Check] = &[
    Check {
        key: "account-taken",
        severity: Blocker,
        title: "the name of the Nix user belongs to somebody",
        see: taken,
    },
    Check {
        key: "account-exists",
        severity: Warning,
        title: "the Nix user exists already and will be used as it is",
        see: exists,
    },
    Check {
        key: "group-exists",
        severity: Warning,
        title: "the Nix group exists already; its members will be able to read what belongs to it",
        see: group_exists,
    },
    Check {
        key: "subid-range-taken",
        severity: Warning,
        title: "ids of Nix's own build range are taken; another range will be used",
        see: range_taken,
    },
    Check {
        key: "subid-range-none-free",
        severity: Blocker,
        title: "no range of ids is free for builds",
        see: range_full,
    },
    Check {
        key: "build-users-stay",
        severity: Info,
        title: "build users will no longer be used; they stay for the way back",
        see: build_users,
    },
];

/// The range to use: `wanted` when none of its ids belongs to somebody else than `owner`, else the next free one of that size
/// that is aligned to a build's slot. `None` when there is none. The same facts give the same range.
pub fn free_range(facts: &Facts, wanted: SubidRange, owner: &str) -> Option<SubidRange> {
    let taken = taken_ranges(facts, owner);
    let collision = |range: SubidRange| {
        taken.iter().filter(|other| range.overlaps(**other)).map(|other| other.last()).max()
    };
    if collision(wanted).is_none() {
        return Some(wanted);
    }
    let search = |first: u32| {
        let mut start = first;
        loop {
            let range =
                SubidRange::new(start, wanted.count).filter(|range| range.last() <= LAST_CONTAINER_ID)?;
            match collision(range) {
                None => return Some(range),
                Some(last) => start = last.checked_add(1)?.checked_next_multiple_of(SubidRange::SLOT)?,
            }
        }
    };
    let above = wanted.start.checked_next_multiple_of(SubidRange::SLOT).and_then(search);
    above.or_else(|| search(FIRST_CONTAINER_ID))
}

/// Ids that belong to others than `owner`: delegated ranges, accounts and groups, those of a directory service and of containers too.
fn taken_ranges(facts: &Facts, owner: &str) -> Vec<SubidRange> {
    let uid = facts.users.iter().find(|user| user.name == owner).map(|user| user.uid.to_string());
    let delegated = facts.subuid.iter().chain(&facts.subgid);
    let others = delegated.filter(|entry| entry.owner != owner && Some(&entry.owner) != uid.as_ref());
    let users = facts.users.iter().map(|user| user.uid);
    let ids: BTreeSet<_> = users.chain(facts.groups.iter().map(|group| group.gid)).collect();
    let single = ids.into_iter().filter_map(|id| SubidRange::new(id, 1));
    let foreign = facts.foreign_ids.iter().map(|ids| ids.range);
    others.map(|entry| entry.range).chain(single).chain(foreign).collect()
}

fn account<'f>(facts: &'f Facts, options: &Options) -> Option<&'f Account> {
    let migrated = facts.flavour == Flavour::Unprivileged;
    facts.users.iter().find(|user| user.name == options.nix_user).filter(|_| !migrated)
}

/// Somebody can log in with it, or it is root by another name.
fn is_a_persons(account: &Account) -> bool {
    let shell = account.shell.file_name().unwrap_or_default();
    account.uid == 0 || !(shell == "nologin" || shell == "false")
}

fn taken(facts: &Facts, options: &Options) -> Option<Seen> {
    let account = account(facts, options).filter(|account| is_a_persons(account))?;
    let Account { name, uid, shell, .. } = account;
    Some(
        Seen::new(format!("{name} has uid {uid} and the login shell {}", shell.display()))
            .remedy("choose another name with --nix-user NAME"),
    )
}

fn exists(facts: &Facts, options: &Options) -> Option<Seen> {
    let account = account(facts, options).filter(|account| !is_a_persons(account))?;
    let Account { name, uid, home, .. } = account;
    Some(
        Seen::new(format!("{name} has uid {uid} and the home {}", home.display()))
            .remedy("if another service runs as this user, choose another name with --nix-user NAME"),
    )
}

fn group_exists(facts: &Facts, options: &Options) -> Option<Seen> {
    let migrated = facts.flavour == Flavour::Unprivileged;
    let group = facts.groups.iter().find(|group| group.name == options.nix_user && !migrated)?;
    let members = if group.members.is_empty() { "nobody".to_owned() } else { group.members.join(", ") };
    Some(Seen::new(format!("{} has gid {} and as members {members}", group.name, group.gid)))
}

fn range_taken(facts: &Facts, options: &Options) -> Option<Seen> {
    let wanted = options.range;
    let free = free_range(facts, wanted, &options.nix_user).filter(|range| *range != wanted)?;
    let by = colliding(facts, options);
    Some(Seen::new(format!(
        "{} to {} meet {by}; {} to {} will be used",
        wanted.start,
        wanted.last(),
        free.start,
        free.last()
    )))
}

fn range_full(facts: &Facts, options: &Options) -> Option<Seen> {
    let none = free_range(facts, options.range, &options.nix_user).is_none();
    none.then(|| {
        Seen::new(format!(
            "{} ids in a row are not free; taken by {}",
            options.range.count,
            colliding(facts, options)
        ))
        .remedy("remove delegations that nobody uses from /etc/subuid and /etc/subgid, or ask for fewer ids")
    })
}

/// Who holds ids of the wanted range, the first three.
fn colliding(facts: &Facts, options: &Options) -> String {
    let meets = |range: SubidRange| range.overlaps(options.range);
    let delegated = facts.subuid.iter().chain(&facts.subgid).filter(|entry| meets(entry.range));
    let delegated =
        delegated.map(|entry| format!("the delegation to {} at {}", entry.owner, entry.range.start));
    let users = facts.users.iter().filter(|user| options.range.contains(user.uid));
    let users = users.map(|user| format!("the account {} ({})", user.name, user.uid));
    let groups = facts.groups.iter().filter(|group| options.range.contains(group.gid));
    let foreign = facts.foreign_ids.iter().filter(|ids| meets(ids.range));
    let foreign = foreign.map(|ids| format!("{} at {}", ids.holder, ids.range.start));
    let mut names: Vec<_> = delegated
        .chain(users)
        .chain(groups.map(|group| format!("the group {} ({})", group.name, group.gid)))
        .chain(foreign)
        .collect();
    names.dedup();
    names.truncate(3);
    names.join(", ")
}

/// On a Mac they stay in use: the broker runs builds under them.
fn build_users(facts: &Facts, _: &Options) -> Option<Seen> {
    if facts.mac.is_some() {
        return None;
    }
    let group = facts.build_users.group.as_ref()?;
    Some(Seen::new(format!("{} members of the group {group}", facts.build_users.members.len())))
}
