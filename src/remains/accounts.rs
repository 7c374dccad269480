//! Users and groups that an installer of Nix made.

use super::Remains;
use crate::facts::{Account, Facts, Flavour};

/// Adds the build users, and their group when nobody else is in it. Somebody else's account in the build group is left
/// alone, and said.
pub(super) fn find(facts: &Facts, remains: &mut Remains) {
    let Some(group) = &facts.build_users.group else { return };
    let gid = facts.build_users.gid;
    let in_group = |user: &&Account| {
        facts.build_users.members.iter().any(|(name, _)| *name == user.name) || Some(user.gid) == gid
    };
    for user in facts.users.iter().filter(in_group) {
        if is_build_user(user) {
            remains.users.push(user.name.clone());
            remains.build_uids.push(user.uid);
        } else {
            remains
                .stays
                .push(format!("the user {}: it is in the group {group}, and no build user", user.name));
        }
    }
    let stay = facts.users.iter().filter(in_group).any(|user| !remains.users.contains(&user.name));
    match stay {
        true => remains.stays.push(format!("the group {group}: somebody else is in it")),
        false => remains.groups.push(group.clone()),
    }
    // Debian's package makes a group of those who may connect.
    let debian = matches!(&facts.flavour, Flavour::Packages { distribution, .. } if distribution == "debian");
    if debian && facts.groups.iter().any(|group| group.name == "nix-users") {
        remains.groups.push("nix-users".to_owned());
    }
}

/// By its name (`nixbld1`, `nixbld-1`, `nixbld01`, `_nixbld1`), and by the shell that lets nobody log in.
fn is_build_user(user: &Account) -> bool {
    let rest =
        user.name.trim_start_matches('_').strip_prefix("nixbld").map(|rest| rest.trim_start_matches('-'));
    let named = rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
    named && ["nologin", "false"].iter().any(|shell| user.shell.ends_with(shell))
}
