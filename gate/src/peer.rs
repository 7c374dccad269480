//! Who is on the other end of a connection.

use crate::{Failure, Result, while_doing};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::os::fd::AsFd;

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

/// The peer of a connected Unix socket.
///
/// Must be asked before a user namespace is entered: inside, ids that it does not map read as 65534
/// (user_namespaces(7)).
///
/// # Errors
/// When it is no such socket, or has no peer.
pub fn of(socket: impl AsFd) -> Result<Peer> {
    let credentials =
        getsockopt(&socket, PeerCredentials).map_err(while_doing("ask the kernel who connected"))?;
    let peer = Peer { pid: credentials.pid(), uid: credentials.uid(), gid: credentials.gid() };
    // unix(7): a socket without a peer answers with -1.
    if peer.uid == u32::MAX || peer.gid == u32::MAX {
        return Err(Failure::new("a connection has no other end"));
    }
    Ok(peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    #[test]
    fn the_kernel_knows_who_it_is() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = of(&ours).unwrap();
        assert_eq!(peer.pid, std::process::id().cast_signed());
        assert_eq!((peer.uid, peer.gid), (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()));
        assert!(of(UnixDatagram::unbound().unwrap()).is_err(), "nobody is there");
        assert!(of(std::fs::File::open("/dev/null").unwrap()).is_err(), "no socket");
    }
}
