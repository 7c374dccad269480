//! The process that waits for clients, and forks one for each.
//!
//! It holds the capabilities for as long as it lives, so it does as little as it can: it reads nothing that a client sends, opens no
//! configuration, loads no name service. From a client it has the uid that the kernel noted, to count connections.

use crate::args::Args;
use crate::connections::{Connections, Full};
use crate::log::{self, Throttle};
use crate::peer::{self, Peer};
use crate::signals::Signals;
use crate::{Result, leftovers, protect, refuse, serve, while_doing};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid};
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// How long nobody is accepted after the machine had no process or file to spare. Clients wait in the socket's queue meanwhile.
const PAUSE: Duration = Duration::from_millis(100);
/// How many clients are accepted before signals are looked at again.
const AT_ONCE: usize = 64;
/// How many refused connections are kept for [`refuse::PATIENCE`]. Beyond that the oldest is closed.
const MOST_REFUSED: usize = 64;
/// How long daemons may take to tidy up when the gate is stopped, and how long what has to be killed then may take to die. Less, together, than the
/// unit's `TimeoutStopSec=`.
const STOP_GRACE: Duration = Duration::from_secs(10);
const KILL_GRACE: Duration = Duration::from_secs(5);

/// The state of the waiting process.
#[derive(Debug)]
struct Acceptor<'a> {
    args: &'a Args,
    listener: UnixListener,
    signals: Signals,
    connections: Connections,
    /// Refused ones, with the time to close them.
    refused: VecDeque<(Instant, UnixStream)>,
    paused_until: Option<Instant>,
    refusals: Throttle,
    shortages: Throttle,
}

/// Serves clients until a signal asks to stop; then ends all connections. Capabilities are permitted, and none in effect.
///
/// # Errors
/// When the socket fails, or the kernel refuses what it has no reason to refuse.
pub fn run(listener: UnixListener, args: &Args) -> Result<()> {
    // The same user's other processes may not look into this one.
    protect::from_own_user(true)?;
    protect::adopt()?;
    listener.set_nonblocking(true).map_err(while_doing("prepare the socket"))?;
    let signals = Signals::new()?;
    Acceptor {
        args,
        listener,
        signals,
        connections: Connections::new(args.limits),
        refused: VecDeque::new(),
        paused_until: None,
        refusals: Throttle::default(),
        shortages: Throttle::default(),
    }
    .run()
}

/// What a signal asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    ToGoOn,
    ToStop,
}

impl Acceptor<'_> {
    fn run(mut self) -> Result<()> {
        loop {
            let (signalled, connecting) = self.wait()?;
            if signalled && self.handle_signals()? == Asked::ToStop {
                return self.stop();
            }
            if connecting {
                self.accept()?;
            }
            let now = Instant::now();
            self.paused_until = self.paused_until.filter(|end| *end > now);
            while self.refused.front().is_some_and(|(end, _)| *end <= now) {
                self.refused.pop_front();
            }
        }
    }

    /// Waits for something to do: signals, clients, or neither when a time has come.
    fn wait(&self) -> Result<(bool, bool)> {
        let next = self.refused.front().map(|(end, _)| *end).into_iter().chain(self.paused_until).min();
        let left = next.map(|next| next.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        // Both times are short, so the conversion cannot fail.
        let timeout =
            left.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        let mut files = [
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        let watched = if self.paused_until.is_some() { 1 } else { 2 };
        match poll(&mut files[..watched], timeout) {
            Ok(_) => {
                let happened = |file: &PollFd<'_>| file.any().unwrap_or_default();
                Ok((happened(&files[0]), watched == 2 && happened(&files[1])))
            }
            Err(Errno::EINTR | Errno::EAGAIN | Errno::ENOMEM) => Ok((false, false)),
            Err(error) => Err(while_doing("wait for clients")(error)),
        }
    }

    fn handle_signals(&mut self) -> Result<Asked> {
        let stop = self.signals.take()?;
        self.look_after_children();
        Ok(if stop { Asked::ToStop } else { Asked::ToGoOn })
    }

    fn look_after_children(&mut self) {
        let mut ended = false;
        for child in leftovers::reap() {
            ended = true;
            if let (Some(uid), Some(signal)) = (self.connections.remove(child.pid), child.signal) {
                log::line(format_args!(
                    "the process {} of a connection of uid {uid} ended by {signal}",
                    child.pid
                ));
            }
        }
        if ended {
            leftovers::kill_all(&self.connections);
        }
    }

    fn accept(&mut self) -> Result<()> {
        for _ in 0..AT_ONCE {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
                    Errno::EAGAIN => return Ok(()),
                    Errno::EINTR | Errno::ECONNABORTED => continue,
                    // Of files or memory. The client waits.
                    Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS => {
                        self.pause(format_args!("cannot accept a connection: {error}"));
                        return Ok(());
                    }
                    _ => return Err(while_doing("accept a connection")(error)),
                },
            };
            match peer::of(&stream) {
                Ok(peer) => self.admit(stream, peer),
                Err(failure) => self.refusals.line(failure),
            }
            if self.paused_until.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn admit(&mut self, stream: UnixStream, peer: Peer) {
        match self.connections.admit(peer.uid) {
            Ok(()) => self.serve(stream, peer),
            Err(full) => {
                self.refusals.line(format_args!("refused a connection of uid {}: {full}", peer.uid));
                let whose = match full {
                    Full::User(_) => format!("uid {}", peer.uid),
                    Full::Total(_) => "all users together".to_owned(),
                };
                self.refuse(stream, &format!("{whose} has too many connections to the Nix daemon: {full}"));
            }
        }
    }

    fn serve(&mut self, stream: UnixStream, peer: Peer) {
        // SAFETY: this process has a single thread, so the child may do whatever the parent may.
        #[allow(unsafe_code)]
        let forked = unsafe { nix::unistd::fork() };
        match forked {
            Ok(ForkResult::Child) => serve::connection(stream, peer, self.args),
            Ok(ForkResult::Parent { child }) => self.connections.add(child.as_raw(), peer.uid),
            Err(error) => {
                self.pause(format_args!("cannot fork for a connection of uid {}: {error}", peer.uid));
                self.refuse(
                    stream,
                    "the machine has no room for another Nix daemon at the moment; try again",
                );
            }
        }
    }

    fn pause(&mut self, why: std::fmt::Arguments<'_>) {
        self.shortages.line(why);
        self.paused_until = Some(Instant::now() + PAUSE);
    }

    fn refuse(&mut self, stream: UnixStream, message: &str) {
        refuse::tell_at_once(&stream, message);
        if self.refused.len() == MOST_REFUSED {
            self.refused.pop_front();
        }
        self.refused.push_back((Instant::now() + refuse::PATIENCE, stream));
    }

    /// Asks all daemons to end, then makes them.
    fn stop(mut self) -> Result<()> {
        self.signal_all(Signal::SIGTERM);
        self.wait_for_children(STOP_GRACE)?;
        self.signal_all(Signal::SIGKILL);
        self.wait_for_children(KILL_GRACE)
    }

    fn signal_all(&self, signal: Signal) {
        for pid in self.connections.processes() {
            // One that has just ended is what is wanted.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Until there are none, leftovers included, or the time is up.
    fn wait_for_children(&mut self, grace: Duration) -> Result<()> {
        let end = Instant::now() + grace;
        loop {
            self.look_after_children();
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || leftovers::none(&self.connections) {
                return Ok(());
            }
            let mut files = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            // Less than a minute, so the conversion cannot fail.
            match poll(&mut files, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(while_doing("wait for daemons to end")(error)),
            }
            self.signals.take()?;
        }
    }
}
