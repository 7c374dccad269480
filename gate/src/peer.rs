//! Who is on the other end of the connection.

use crate::{Failure, Result, while_doing};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

/// The client, as the kernel recorded it when it called `connect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process, for the log only: it may be gone, and the number used again.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

/// The peer of the socket on standard input.
///
/// Must be asked before a user namespace is entered: inside, ids that it does not map read as 65534
/// (user_namespaces(7)).
///
/// # Errors
/// When standard input is not a connected Unix socket.
pub fn of_stdin() -> Result<Peer> {
    let credentials = getsockopt(&std::io::stdin(), PeerCredentials).map_err(while_doing(
        "ask who connected (standard input has to be the client's Unix socket, from systemd)",
    ))?;
    let peer = Peer { pid: credentials.pid(), uid: credentials.uid(), gid: credentials.gid() };
    // unix(7): a socket without a peer answers with -1.
    if peer.uid == u32::MAX || peer.gid == u32::MAX {
        return Err(Failure::new("standard input is a socket that nobody connected to"));
    }
    Ok(peer)
}
