//! Whom the daemon trusts.

use std::os::unix::fs::MetadataExt;

use super::handshake::{Answer, greet_as};
use super::{CheckError, Outcome, Target, conf};
use crate::daemon::{Connection, Trust};

pub(super) fn check_root(target: &Target) -> Result<Outcome, CheckError> {
    let connection = Connection::open(&target.socket)?;
    Ok(match connection.trust() {
        Trust::Trusted => Outcome::passed("the daemon says that it trusts root"),
        other => Outcome::failed(
            format!("the daemon says of root: {other:?}"),
            "the gate must read the peer's uid before it enters the user namespace; does nix.conf's trusted-users name root?",
        ),
    })
}

pub(super) fn check_untrusted(target: &Target) -> Result<Outcome, CheckError> {
    let uid = target.untrusted_uid;
    let answer = greet_as(uid, group_to_reach(target)?, &target.socket)?;
    let open_to_all = conf::read(&target.conf_files[..1.min(target.conf_files.len())])?
        .get("allowed-users")
        .is_none_or(|allowed| allowed.split_whitespace().any(|user| user == "*"));
    Ok(match answer {
        Answer::Greeted(Trust::NotTrusted) => Outcome::passed(format!("the daemon does not trust uid {uid}")),
        Answer::Refused(reason) if !open_to_all => {
            Outcome::passed(format!("the daemon refuses uid {uid}: {reason}"))
        }
        Answer::Greeted(other) => Outcome::failed(
            format!("the daemon says of uid {uid}: {other:?}"),
            "trusted-users in nix.conf must not name everybody, and the gate must pass on who connects",
        ),
        Answer::Refused(reason) | Answer::Unreached(reason) => Outcome::failed(
            format!("uid {uid} cannot use the daemon although allowed-users lets everybody: {reason}"),
            target.logs,
        ),
    })
}

/// The group with which an ordinary user reaches the socket: the one that its directory or the socket itself demands,
/// or `nogroup`'s usual number.
fn group_to_reach(target: &Target) -> Result<u32, CheckError> {
    let directory = target.socket.parent().unwrap_or(&target.socket);
    let (mut gid, places) = (65534, [(&*target.socket, 0o002), (directory, 0o001)]);
    for (path, needed) in places {
        let metadata = path.metadata().map_err(CheckError::io("cannot look at", path))?;
        if metadata.mode() & needed == 0 {
            gid = metadata.gid();
        }
    }
    Ok(gid)
}
