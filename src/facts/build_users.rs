//! Build users.

use super::BuildUsers;
use super::reader::Reader;

/// The group is the one `build-users-group` names; root's Nix takes `nixbld` when nothing is set
/// (`src/libstore/globals.cc`). Its members are those of the group's list, as in Nix, and those whose primary group it is:
/// packages differ (`nixbld1`, Fedora's `nixbld-1`, Arch's `nixbld01`), so names are not looked at.
pub(crate) fn gather(reader: &Reader<'_>, setting: Option<&str>) -> BuildUsers {
    let name = setting.unwrap_or("nixbld");
    // An empty setting means "no build users", but an installer's group may still be there and needs telling.
    let name = if name.is_empty() { "nixbld" } else { name };
    let Some(group) = reader.accounts.group(name) else { return BuildUsers::default() };
    let listed =
        group.members.iter().filter_map(|member| Some((member.clone(), reader.accounts.uid(member)?)));
    let primary = reader.accounts.users.iter().filter(|user| user.gid == group.gid);
    let mut members: Vec<_> = listed.chain(primary.map(|user| (user.name.clone(), user.uid))).collect();
    members.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
    members.dedup();
    BuildUsers { group: Some(group.name), gid: Some(group.gid), members }
}
