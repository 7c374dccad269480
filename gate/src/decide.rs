//! The decision: may this peer connect, and is it trusted? The rules of `authPeer` in Nix's `daemon.cc`.

use crate::accounts::Names;
use crate::args::Args;
use crate::conf::Access;

/// What the daemon will be told about the peer.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// May do what only trusted users may.
    Trusted,
    /// May connect.
    Untrusted,
    /// May not connect; the reason is for the log.
    Refused(&'static str),
}

/// Decides. `members` gives the listed members of a group, if there is such a group.
pub fn decide(
    access: &Access,
    uid: u32,
    names: &Names,
    args: &Args,
    members: impl Fn(&str) -> Option<Vec<String>>,
) -> Verdict {
    // Nix knows build users by their group only; builds that run under subordinate ids have no account.
    if args.builds.contains(uid) {
        return Verdict::Refused("it is a build");
    }
    if names.group == args.build_group {
        return Verdict::Refused("its group is that of the build users");
    }
    if matches(&access.trusted, names, &members) {
        Verdict::Trusted
    } else if matches(&access.allowed, names, &members) {
        Verdict::Untrusted
    } else {
        Verdict::Refused("neither allowed-users nor trusted-users names it")
    }
}

/// Is the peer meant by this list of names, `@group`s and `*`?
fn matches(list: &[Vec<u8>], names: &Names, members: &impl Fn(&str) -> Option<Vec<String>>) -> bool {
    // First what needs no look-up.
    if list.iter().any(|entry| entry == b"*" || entry == names.user.as_bytes()) {
        return true;
    }
    list.iter().filter_map(|entry| entry.strip_prefix(b"@")).any(|group| {
        group == names.group.as_bytes()
            // A group whose name is not UTF-8 cannot be looked up, and so names nobody.
            || str::from_utf8(group)
                .ok()
                .and_then(members)
                .is_some_and(|members| members.contains(&names.user))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builds::{Builds, Ids, Subids};
    use crate::connections::Limits;
    use std::path::PathBuf;

    fn args() -> Args {
        Args {
            daemon: PathBuf::new(),
            builds: Builds::Namespace(Subids(Ids { start: 1 << 20, count: 65536 })),
            launchd: None,
            conf: vec![],
            build_group: "nixbld".to_owned(),
            home: PathBuf::new(),
            limits: Limits { total: 1, per_user: 1 },
            listen: None,
        }
    }

    /// The group database of the tests: `wheel` lists alice and 4711, `staff` lists nobody.
    fn members(group: &str) -> Option<Vec<String>> {
        match group {
            "wheel" => Some(vec!["alice".to_owned(), "4711".to_owned()]),
            "staff" | "nixbld" => Some(vec![]),
            _ => None,
        }
    }

    #[test]
    fn who_is_trusted_and_who_may_connect() {
        use Verdict::{Refused, Trusted, Untrusted};
        let nobody = Refused("neither allowed-users nor trusted-users names it");
        let build = Refused("its group is that of the build users");
        for (trusted, allowed, who, verdict) in [
            ("root", "*", "root:root", &Trusted),
            ("root", "*", "alice:alice", &Untrusted),
            ("alice", "bob", "alice:alice", &Trusted),
            ("alice", "bob", "bob:bob", &Untrusted),
            ("alice", "bob", "carol:carol", &nobody),
            ("", "", "root:root", &nobody),
            ("*", "", "carol:carol", &Trusted),
            // by the member list, and by the primary group, which is not in it
            ("@wheel", "", "alice:users", &Trusted),
            ("@wheel", "", "bob:users", &nobody),
            ("@staff", "", "bob:staff", &Trusted),
            ("", "@staff", "bob:users", &nobody),
            ("", "@missing", "bob:users", &nobody),
            ("", "@missing", "bob:missing", &Untrusted),
            // ids stand for what has no name, and for nothing else
            ("4712", "", "4712:100", &Trusted),
            ("@100", "", "4712:100", &Trusted),
            ("@wheel", "", "4711:100", &Trusted),
            ("1000", "", "alice:users", &nobody),
            // no partial matches, no case folding, no empty group
            ("ali", "Alice", "alice:users", &nobody),
            ("@", "@@wheel", "alice:users", &nobody),
            ("@*", "", "alice:users", &nobody),
            ("alice@wheel", "", "alice:wheel", &nobody),
            // the group of the build users, even when trusted
            ("*", "*", "nixbld1:nixbld", &build),
            ("nixbld1", "", "nixbld1:nixbld", &build),
            ("", "*", "nixbld1:users", &Untrusted),
        ] {
            let list = |text: &str| text.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
            let access = Access { trusted: list(trusted), allowed: list(allowed) };
            let (user, group) = who.split_once(':').unwrap();
            let names = Names { user: user.to_owned(), group: group.to_owned() };
            let got = decide(&access, 1000, &names, &args(), members);
            assert_eq!(&got, verdict, "trusted-users = {trusted}; allowed-users = {allowed}; {who}");
        }
    }

    #[test]
    fn builds_may_not_connect_whatever_the_configuration_says() {
        let access = Access { trusted: vec![b"*".to_vec()], allowed: vec![b"*".to_vec()] };
        for (uid, refused) in [(1 << 20, true), ((1 << 20) + 65535, true), ((1 << 20) + 65536, false)] {
            let names = Names { user: uid.to_string(), group: uid.to_string() };
            let verdict = decide(&access, uid, &names, &args(), members);
            assert_eq!(verdict == Verdict::Refused("it is a build"), refused, "{uid}");
        }
    }

    #[test]
    fn a_group_name_that_is_not_utf8_names_nobody() {
        let access = Access { trusted: vec![b"@\xff".to_vec()], allowed: vec![] };
        let names = Names { user: "u".to_owned(), group: "\u{fffd}".to_owned() };
        assert!(matches!(decide(&access, 1, &names, &args(), members), Verdict::Refused(_)));
    }
}
