//! Who runs the daemon.

use std::time::{Duration, Instant};

use super::process::{Process, own_namespace};
use super::{CheckError, Outcome, Target, peer};
use crate::daemon::Connection;
use crate::system::pause::Pause;

const REMEDY: &str = "the socket must start nix-daemon-gate.service (User=nix, ExecStart=nix-daemon-gate), and the old nix-daemon.service \
                      must be stopped and masked: systemctl status nix-daemon.socket nix-daemon.service; without an init system \
                      start-nix-daemon must be what listens";

pub(super) fn check(target: &Target) -> Result<Outcome, CheckError> {
    let connection = Connection::open(&target.socket)?;
    let server = server_of(&connection)?;
    let mut complaints = Vec::new();
    if server.uids.len() != 4 || server.uids.iter().any(|uid| *uid != target.nix_uid) {
        complaints.push(format!(
            "{} has the uids {:?}, not {} only",
            server.describe(),
            server.uids,
            target.nix_uid
        ));
    }
    if server.gids.len() != 4 || server.gids.iter().chain(&server.groups).any(|gid| *gid != target.nix_gid) {
        let groups = (&server.gids, &server.groups);
        complaints.push(format!(
            "{} has the groups {groups:?}, not {} only",
            server.describe(),
            target.nix_gid
        ));
    }
    let own = own_namespace("user")?;
    if server.namespace("user")? == own && server.capabilities != 0 {
        let set = server.capabilities;
        complaints
            .push(format!("{} holds capabilities {set:#x} in the host's user namespace", server.describe()));
    } else if server.namespace("user")? == own {
        complaints.push(format!("{} has no user namespace of its own", server.describe()));
    }
    let seen = format!(
        "{}, Nix {}, has uid {} and a user namespace of its own",
        server.describe(),
        connection.nix_version(),
        target.nix_uid
    );
    Ok(Outcome::unless(&complaints, seen, REMEDY))
}

/// The one process that serves `connection`.
pub(super) fn server_of(connection: &Connection) -> Result<Process, CheckError> {
    let failed =
        |source| CheckError::Other(format!("cannot find the process behind the daemon's socket: {source}"));
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut pause = Pause::up_to(Duration::from_millis(20));
    loop {
        // A daemon that forks for each connection holds it twice for a moment.
        match peer::holders(connection.stream()).map_err(failed)?.as_slice() {
            [pid] => return Process::read(*pid),
            others if Instant::now() > deadline => {
                let reason = format!("expected one process behind the daemon's socket, found {others:?}");
                return Err(CheckError::Other(reason));
            }
            _ => pause.wait(),
        }
    }
}
