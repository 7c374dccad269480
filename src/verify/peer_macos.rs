//! Who is at the other end of a Unix socket: `LOCAL_PEERPID` of unix(4), the process that last used it.

use std::io;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{getsockopt, sockopt};

/// The process at the other end of `stream`, unless that is launchd, which holds the sockets of jobs that have not started.
///
/// # Errors
/// When the kernel does not tell.
pub(super) fn holders(stream: &UnixStream) -> io::Result<Vec<i32>> {
    let pid = getsockopt(stream, sockopt::LocalPeerPid)?;
    Ok(if pid > 1 { vec![pid] } else { Vec::new() })
}

/// Whether [`holders`] finds the other end of one of several connections of ours, and not of all of them.
pub(super) fn tells_connections_apart() -> bool {
    true
}
