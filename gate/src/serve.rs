//! One connection: from the fork to the daemon.

use crate::args::Args;
use crate::decide::{Verdict, decide};
use crate::namespace::{self, maps::MapWriter};
use crate::peer::Peer;
use crate::{Result, accounts, caps, conf, exec, log, refuse, while_doing};
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use std::convert::Infallible;
use std::os::unix::net::UnixStream;

/// The whole life of the process of a connection, which the acceptor has just forked.
pub fn connection(stream: UnixStream, peer: Peer, args: &Args) -> ! {
    let status = match serve(stream, peer, args) {
        Ok(Served::Refused) => 0,
        Err(failure) => {
            log::line(&failure);
            refuse::tell("the Nix daemon could not be started; the system's log says why");
            1
        }
    };
    std::process::exit(status)
}

/// How a connection ends without an error while this program is still itself.
enum Served {
    /// The peer may not connect.
    Refused,
}

/// On success it ends in `execve`.
fn serve(stream: UnixStream, peer: Peer, args: &Args) -> Result<Served> {
    exec::keep_only(stream)?;
    SigSet::empty().thread_set_mask().map_err(while_doing("let signals in"))?;
    // What a build leaves running stays with this connection, and ends after it.
    prctl::set_child_subreaper(true).map_err(while_doing("become the parent of what loses its own"))?;
    // The last moment with CAP_SETUID in this process: the writer takes it along, and it is gone here.
    let writer = MapWriter::fork(args.subids)?;
    caps::drop_all_but(caps::SYS_ADMIN)?;
    // Nothing to protect any more; and the writer could not open this process's maps.
    prctl::set_dumpable(true).map_err(while_doing("become an ordinary process"))?;

    let access = conf::load(&args.conf, std::env::var_os(exec::NIX_CONFIG).as_deref())?;
    let names = accounts::names(peer);
    let trusted = match decide(&access, peer.uid, &names, args, accounts::members) {
        Verdict::Trusted => true,
        Verdict::Untrusted => false,
        Verdict::Refused(reason) => {
            log::line(format_args!("refused connection from pid {}, {names}: {reason}", peer.pid));
            refuse::tell(&format!("{names} is not allowed to connect to the Nix daemon"));
            return Ok(Served::Refused);
        }
    };
    log::line(format_args!(
        "accepted connection from pid {}, {names}{}",
        peer.pid,
        if trusted { " (trusted)" } else { "" }
    ));

    namespace::enter(writer, args)?;
    let never: Infallible = exec::daemon(args, peer, trusted)?;
    match never {}
}
