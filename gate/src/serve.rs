//! One connection: from the fork to the daemon.

use crate::args::Args;
use crate::decide::{Verdict, decide};
use crate::peer::Peer;
use crate::{Result, accounts, conf, exec, log, protect, refuse, while_doing};
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
    protect::adopt()?;
    // The last moment with CAP_SETUID in this process.
    let world = World::before_input(args)?;
    // Nothing to protect any more; and the writer could not open this process's maps.
    protect::from_own_user(false)?;

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

    world.enter(args)?;
    let never: Infallible = exec::daemon(args, peer, trusted)?;
    match never {}
}

/// Where the daemon will run: in a namespace, once its writer is there; or right here, when a broker has the builds.
#[derive(Debug)]
struct World {
    #[cfg(target_os = "linux")]
    namespace: Option<(crate::namespace::maps::MapWriter, crate::builds::Subids)>,
}

#[cfg(target_os = "linux")]
impl World {
    /// The writer takes the capabilities along, and they are gone here.
    fn before_input(args: &Args) -> Result<Self> {
        use crate::{builds::Builds, caps, namespace::maps::MapWriter};
        let namespace = match args.builds {
            Builds::Namespace(subids) => Some((MapWriter::fork(subids)?, subids)),
            Builds::Broker(_) => None,
        };
        caps::drop_all_but(if namespace.is_some() { caps::SYS_ADMIN } else { 0 })?;
        Ok(Self { namespace })
    }

    fn enter(self, args: &Args) -> Result<()> {
        match self.namespace {
            Some((writer, subids)) => crate::namespace::enter(writer, subids, args),
            None => Ok(()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl World {
    fn before_input(_: &Args) -> Result<Self> {
        Ok(Self {})
    }

    fn enter(self, _: &Args) -> Result<()> {
        Ok(())
    }
}
