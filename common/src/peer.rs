//! Who is on the other end of a connection.

use crate::{Failure, Result, while_doing};
use nix::sys::socket::{getsockopt, sockopt};
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
    let peer = ask(&socket).map_err(while_doing("ask the kernel who connected"))?;
    // unix(7): a socket without a peer answers with -1.
    if peer.uid == u32::MAX || peer.gid == u32::MAX {
        return Err(Failure::new("a connection has no other end"));
    }
    Ok(peer)
}

#[cfg(target_os = "linux")]
fn ask(socket: &impl AsFd) -> nix::Result<Peer> {
    let found = getsockopt(socket, sockopt::PeerCredentials)?;
    Ok(Peer { pid: found.pid(), uid: found.uid(), gid: found.gid() })
}

/// `LOCAL_PEERCRED` and `LOCAL_PEERPID` (macOS's `unix(4)`): the first of the groups is the effective one.
#[cfg(target_os = "macos")]
fn ask(socket: &impl AsFd) -> nix::Result<Peer> {
    let found = getsockopt(socket, sockopt::LocalPeerCred)?;
    if found.version() != nix::libc::XUCRED_VERSION {
        return Err(nix::errno::Errno::EINVAL);
    }
    let pid = getsockopt(socket, sockopt::LocalPeerPid)?;
    Ok(Peer { pid, uid: found.uid(), gid: found.groups()[0] })
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
