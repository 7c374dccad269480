//! Names of users and groups, from whatever the machine's name service knows.
//!
//! The name service may load libraries of its own (LDAP, systemd, ...). They run here without `CAP_SETUID`.

use crate::group::Group;
use crate::log;
use crate::peer::Peer;
use nix::unistd::{Uid, User};

/// How Nix names a client (`authPeer` in its `daemon.cc`): what has no name is called by its decimal id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Of the user.
    pub user: String,
    /// Of the primary group.
    pub group: String,
}

impl std::fmt::Display for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A name comes from a name service and goes to a log: nothing in it may look like a second line.
        write!(f, "user '{}'", self.user.escape_debug())
    }
}

/// The names of the peer.
#[must_use]
pub fn names(peer: Peer) -> Names {
    let user = found(User::from_uid(Uid::from_raw(peer.uid)), &peer.uid);
    let group = found(Group::by_id(peer.gid), &peer.gid);
    Names {
        user: user.map_or_else(|| peer.uid.to_string(), |user| user.name),
        group: group.map_or_else(|| peer.gid.to_string(), |group| group.name),
    }
}

/// The members that the group database lists for a group; nothing when there is no such group.
///
/// Users whose primary group it is are usually not listed.
#[must_use]
pub fn members(group: &str) -> Option<Vec<String>> {
    found(Group::by_name(group), &group).map(|group| group.members)
}

/// As in Nix, a name service that fails is one that does not know; but the log tells.
fn found<T>(answer: nix::Result<Option<T>>, asked: &dyn std::fmt::Display) -> Option<T> {
    answer.unwrap_or_else(|error| {
        log::line(format_args!("looking up '{asked}' failed: {error}; it counts as unknown"));
        None
    })
}
