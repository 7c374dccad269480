//! Who is suspected: the user that owns the store and everything that runs under its ids.

use std::collections::BTreeSet;
use std::path::Path;

use crate::facts::Facts;
use crate::types::SubidRange;

/// A set of ids, and what they own now or would own after a migration.
#[derive(Clone, Debug)]
pub struct Subject {
    /// In words: `the user nix and its builds`.
    pub name: String,
    uids: BTreeSet<u32>,
    gids: BTreeSet<u32>,
    ranges: Vec<SubidRange>,
    /// What root owns below the store counts as the subject's, as a migration would make it.
    heir: bool,
}

/// Owner, group and permission bits, as they count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

impl Subject {
    /// The user `name` with its group and its build ids: whom a migrated machine has to fear. `None` when there is no such user.
    pub fn user(facts: &Facts, name: &str) -> Option<Self> {
        let user = facts.users.iter().find(|user| user.name == name)?;
        let member = |group: &&crate::facts::Group| group.members.iter().any(|member| member == name);
        let groups = facts.groups.iter().filter(member).map(|group| group.gid);
        let delegated = facts.subuid.iter().chain(&facts.subgid).filter(|entry| entry.owner == name);
        Some(Self {
            name: format!("the user {name} and its builds"),
            uids: [user.uid].into(),
            gids: groups.chain([user.gid]).filter(|gid| *gid != 0).collect(),
            ranges: delegated.map(|entry| entry.range).collect(),
            heir: false,
        })
    }

    /// The build users of a root-owned Nix.
    pub fn build_users(facts: &Facts) -> Self {
        Self {
            name: "the build users".to_owned(),
            uids: facts.build_users.members.iter().map(|(_, uid)| *uid).collect(),
            gids: facts.build_users.gid.into_iter().collect(),
            ranges: Vec::new(),
            heir: false,
        }
    }

    /// Whoever will own the store after a migration.
    pub fn heir(facts: &Facts) -> Self {
        Self {
            name: "the Nix user that a migration makes".to_owned(),
            heir: true,
            ..Self::build_users(facts)
        }
    }

    /// What counts as owner and mode of `path`, which has these.
    pub(super) fn standing(&self, path: &Path, uid: u32, gid: u32, mode: u32) -> Standing {
        let kept = ["/nix/store", "/nix/var/nix"].iter().any(|kept| path == Path::new(kept));
        let sockets = ["/nix/var/nix/daemon-socket", "/nix/var/nix/gc-roots-socket"];
        let of_root = sockets.iter().any(|kept| path.starts_with(kept));
        let below =
            ["/nix/store", "/nix/var/nix", "/nix/var/log/nix"].iter().any(|tree| path.starts_with(tree));
        match self.heir && uid == 0 && below && !of_root {
            // Sticky, and the group's to write, so it is nobody's to swap what root has in it.
            true if kept => Standing { uid, gid: Self::HEIR, mode: 0o1775 },
            true => Standing { uid: Self::HEIR, gid: Self::HEIR, mode },
            false => Standing { uid, gid, mode },
        }
    }

    pub(super) fn has_uid(&self, uid: u32) -> bool {
        self.heir && uid == Self::HEIR || self.uids.contains(&uid) || self.in_range(uid)
    }

    pub(super) fn has_gid(&self, gid: u32) -> bool {
        self.heir && gid == Self::HEIR || self.gids.contains(&gid) || self.in_range(gid)
    }

    fn in_range(&self, id: u32) -> bool {
        self.ranges.iter().any(|range| range.contains(id))
    }

    /// No process can have it: -1.
    const HEIR: u32 = u32::MAX;
}
