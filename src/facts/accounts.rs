//! Accounts and groups, from `/etc/passwd` and `/etc/group` (passwd(5), group(5)).

use super::reader::Reader;
use super::{Account, Group, macos};

/// The local accounts, with look-ups that on a live machine also ask the name service.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    pub users: Vec<Account>,
    pub groups: Vec<Group>,
    live: bool,
}

impl Accounts {
    pub fn read(reader: &Reader<'_>) -> Self {
        // On macOS those files are for single-user mode alone (opendirectoryd(8)).
        if macos::is_mac(reader) {
            let (users, groups) = macos::accounts::read(reader);
            return Self { users, groups, live: reader.machine.is_live() };
        }
        let users = reader.text("/etc/passwd").unwrap_or_default();
        let groups = reader.text("/etc/group").unwrap_or_default();
        Self {
            users: users.lines().filter_map(parse_user).collect(),
            groups: groups.lines().filter_map(parse_group).collect(),
            live: reader.machine.is_live(),
        }
    }

    /// The group of that name, local or of a directory service.
    pub fn group(&self, name: &str) -> Option<Group> {
        let local = self.groups.iter().find(|group| group.name == name).cloned();
        local.or_else(|| self.live.then(|| users::get_group_by_name(name)).flatten().map(from_name_service))
    }

    /// The uid of a user, local or of a directory service.
    pub fn uid(&self, name: &str) -> Option<u32> {
        let local = self.users.iter().find(|user| user.name == name).map(|user| user.uid);
        local.or_else(|| self.live.then(|| users::get_user_by_name(name)).flatten().map(|user| user.uid()))
    }
}

fn from_name_service(group: users::Group) -> Group {
    use users::os::unix::GroupExt;
    let words =
        |names: &[std::ffi::OsString]| names.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    Group {
        name: group.name().to_string_lossy().into_owned(),
        gid: group.gid(),
        members: words(group.members()),
    }
}

fn parse_user(line: &str) -> Option<Account> {
    let fields: Vec<_> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = fields[..] else { return None };
    Some(Account {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: home.into(),
        shell: shell.into(),
    })
}

fn parse_group(line: &str) -> Option<Group> {
    let fields: Vec<_> = line.split(':').collect();
    let [name, _, gid, members] = fields[..] else { return None };
    let members = members.split(',').map(str::trim).filter(|member| !member.is_empty()).map(str::to_owned);
    Some(Group { name: name.to_owned(), gid: gid.parse().ok()?, members: members.collect() })
}
