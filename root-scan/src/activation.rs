//! The service: a socket from systemd, one client after the other.

use std::io::{self, Write};
use std::os::fd::AsFd;
#[cfg(not(target_os = "macos"))]
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::errno::Errno;
#[cfg(not(target_os = "macos"))]
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, Signal};
#[cfg(not(target_os = "macos"))]
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::time::TimeSpec;

use crate::answer::{Answer, Patience};
use crate::roots::Roots;
use crate::scan::{self, Places};

/// Why there is no socket to serve.
#[derive(Debug)]
pub enum NoSocket {
    /// Nobody passed one: started by hand.
    NotActivated,
    /// What was passed is not what the unit passes.
    Wrong(&'static str),
    /// launchd gave none.
    #[cfg(target_os = "macos")]
    Failed(helper_common::Failure),
}

/// Takes the socket that systemd passes as file 3 (man 3 sd_listen_fds), or launchd by name. To be called once, before any file is opened.
///
/// # Errors
/// When there is none, or not exactly one listening stream socket.
pub fn listener() -> Result<UnixListener, NoSocket> {
    #[cfg(target_os = "macos")]
    return helper_common::launchd::listener(LAUNCHD).map_err(NoSocket::Failed);
    #[cfg(not(target_os = "macos"))]
    systemd()
}

/// The name of the socket in the job's property list.
#[cfg(target_os = "macos")]
const LAUNCHD: &str = "Listener";

#[cfg(not(target_os = "macos"))]
fn systemd() -> Result<UnixListener, NoSocket> {
    let variable = |name| std::env::var(name).ok();
    if variable("LISTEN_PID") != Some(std::process::id().to_string()) {
        return Err(NoSocket::NotActivated);
    }
    if variable("LISTEN_FDS").as_deref() != Some("1") {
        return Err(NoSocket::Wrong("expected exactly one socket (LISTEN_FDS=1)"));
    }
    let socket = passed();
    let stream = getsockopt(&socket, sockopt::SockType).ok() == Some(nix::sys::socket::SockType::Stream);
    if !stream || getsockopt(&socket, sockopt::AcceptConn).ok() != Some(true) {
        return Err(NoSocket::Wrong(
            "file 3 is not a listening stream socket (the socket unit needs Accept=no)",
        ));
    }
    Ok(UnixListener::from(socket))
}

/// Answers clients until none has come for `idle`.
///
/// Who starts us without a client (the timer) wants the roots in homes to be remembered. A client that comes meanwhile waits in
/// the queue, as it does behind another.
///
/// From then on, SIGTERM and its kin are let in only while we wait for a client. So neither they nor the end after `idle` can hit an accepted
/// connection: one that was not accepted stays in the queue of the socket, which systemd holds, and starts us again.
///
/// # Errors
/// When the socket fails. No client is connected then.
pub fn serve(listener: &UnixListener, places: &Places, idle: Duration) -> io::Result<()> {
    if !wait(listener, Duration::ZERO)? {
        refresh(places);
    }
    wait_with_signals()?;
    while wait(listener, idle)? {
        match listener.accept() {
            // Nothing may stand between these two: a client that was accepted must at once get what makes it fail closed.
            Ok((stream, _)) => match Answer::begin(stream, Patience::default()) {
                Ok(answer) => reply(answer, places),
                Err(error) => log(format_args!("the client left: {error}")),
            },
            Err(error)
                if matches!(error.raw_os_error(), Some(nix::libc::EAGAIN | nix::libc::ECONNABORTED)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Keeps SIGTERM and its kin waiting, for as long as nobody lets them in.
pub(crate) fn wait_with_signals() -> io::Result<()> {
    let polite: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    Ok(polite.thread_block()?)
}

fn refresh(places: &Places) {
    match scan::remember(places) {
        Ok(()) => log(format_args!("the roots in homes are remembered as they are now")),
        Err(doubt) => log(format_args!("nothing could be collected now: {doubt}")),
    }
}

fn reply(answer: Answer, places: &Places) {
    let began = Instant::now();
    let mut roots = Roots::new();
    let scanned = scan::and_remember(places, &mut roots);
    let took = began.elapsed().as_millis();
    let sent = match scanned {
        Ok(()) => {
            log(format_args!("{} store paths are alive (scanned in {took} ms)", roots.paths().len()));
            answer.complete(roots.paths())
        }
        Err(doubt) => {
            log(format_args!("nothing can be collected now: {doubt}"));
            answer.refuse()
        }
    };
    if let Err(error) = sent {
        log(format_args!("the client did not take the answer and has to give up: {error}"));
    }
}

/// One line to the journal. Not `eprintln!`, which panics when nobody listens.
pub(crate) fn log(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "nix-root-scan: {line}");
}

/// Returns whether a client came.
fn wait(listener: &UnixListener, idle: Duration) -> io::Result<bool> {
    let end = Instant::now() + idle;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match wait_once(listener, left) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Signals are let in only here.
#[cfg(not(target_os = "macos"))]
fn wait_once(listener: &UnixListener, left: Duration) -> nix::Result<i32> {
    let mut files = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    ppoll(&mut files, Some(TimeSpec::from_duration(left)), Some(SigSet::empty()))
}

/// macOS has no `ppoll`.
#[cfg(target_os = "macos")]
fn wait_once(listener: &UnixListener, left: Duration) -> nix::Result<i32> {
    let mut files = nix::sys::select::FdSet::new();
    files.insert(listener.as_fd());
    let left = TimeSpec::from_duration(left);
    nix::sys::select::pselect(None, &mut files, None, None, Some(&left), &SigSet::empty())
}

#[cfg(not(target_os = "macos"))]
#[allow(unsafe_code)] // A file that is passed by number can only be taken by number.
fn passed() -> OwnedFd {
    // SAFETY: LISTEN_PID and LISTEN_FDS say that file 3 is open and ours; nothing else in this process knows it.
    unsafe { OwnedFd::from_raw_fd(3) }
}
