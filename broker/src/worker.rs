//! One build: from the request to the hand-over, in a process of its own, which is root's.

use crate::args::Serve;
use crate::policy::{self, Build};
use crate::start::{self, Builder};
use crate::wire::{self, Answer};
use crate::work::{Place, Work};
use crate::{Failure, Result, log, platform, processes, while_doing};
use nix::errno::Errno;
use nix::sys::select::{FdSet, pselect};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long the client may take for each piece of its request.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of the log is read after everything that wrote it is gone. A pipe holds less.
const MOST_LATE: usize = 16 << 20;

/// Looks after one build of this uid. `broker` is a pipe that ends when the broker does.
pub fn run(client: &UnixStream, broker: &OwnedFd, uid: u32, work: &Work, serve: &Serve) {
    let ended = attempt(client, broker, uid, work, serve);
    // Whatever came of it, nothing of the build stays. If it does, whoever is next finds that out before it starts.
    if let Err(failure) = processes::end_all(uid).and_then(|()| work.clear(uid)) {
        log::line(format_args!("after the build of uid {uid}: {failure}"));
    }
    let answer = match ended {
        Ok(status) => Answer::Ended(status),
        Err(failure) => {
            log::line(format_args!("build of uid {uid}: {failure}"));
            Answer::Refused(failure.to_string())
        }
    };
    // It may have gone away.
    let _ = wire::answer(client, &answer);
}

fn attempt(client: &UnixStream, broker: &OwnedFd, uid: u32, work: &Work, serve: &Serve) -> Result<u8> {
    hold_signals()?;
    client.set_read_timeout(Some(PATIENCE)).map_err(while_doing("prepare a connection"))?;
    let body = wire::receive(client)?;
    let here = work.path_of(uid);
    let build = policy::check(&wire::decode(&body)?, &serve.store, &platform::build_dir(&here))?;
    drop(body);
    processes::end_all(uid)?;
    work.clear(uid)?;
    let place = work.prepare(uid, serve, &build)?;
    log::line(format_args!("build of uid {uid}: {}", build.outputs[0].as_path().display()));
    let builder = start::start(&here, uid, serve, &build)?;
    let status = follow(client, broker, &builder)?;
    finish(client, builder, uid, work, &place, serve, &build, status)
}

/// The builder has ended by itself.
#[allow(clippy::too_many_arguments)] // They are what a build is.
fn finish(
    client: &UnixStream,
    builder: Builder,
    uid: u32,
    work: &Work,
    place: &Place,
    serve: &Serve,
    build: &Build,
    status: u8,
) -> Result<u8> {
    processes::end_all(uid)?;
    // Nobody writes any more.
    let mut late = Vec::new();
    let flags = nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
    nix::fcntl::fcntl(&builder.log, flags).map_err(while_doing("read the log"))?;
    // Without end only if somebody else got hold of the other end; what there is was read.
    let _ = File::from(builder.log).take(MOST_LATE as u64).read_to_end(&mut late);
    for piece in late.chunks(wire::FRAME) {
        wire::answer(client, &Answer::Log(piece.to_vec())).map_err(while_doing("send the log"))?;
    }
    if status == 0 {
        work.hand_over(place, uid, serve, build)?;
    }
    Ok(status)
}

/// Passes the log on until the builder ends.
///
/// # Errors
/// When the client or the broker goes away first.
fn follow(client: &UnixStream, broker: &OwnedFd, builder: &Builder) -> Result<u8> {
    let mut log_open = true;
    let mut buffer = vec![0; wire::FRAME];
    loop {
        if let Some(status) = ended(builder)? {
            return Ok(status);
        }
        let mut waiting = FdSet::new();
        waiting.insert(client.as_fd());
        waiting.insert(broker.as_fd());
        if log_open {
            waiting.insert(builder.log.as_fd());
        }
        // Signals come in only here, so the end of the builder between the question and the wait is not missed.
        match pselect(None, &mut waiting, None, None, None, &SigSet::empty()) {
            Err(Errno::EINTR) => continue,
            result => result.map_err(while_doing("wait for the builder"))?,
        };
        if waiting.contains(client.as_fd()) {
            // It has nothing more to say.
            return Err(Failure::new("cancelled: the client has left"));
        }
        if waiting.contains(broker.as_fd()) {
            return Err(Failure::new("cancelled: the build broker was stopped"));
        }
        if log_open && waiting.contains(builder.log.as_fd()) {
            let count = nix::unistd::read(&builder.log, &mut buffer).map_err(while_doing("read the log"))?;
            log_open = count > 0;
            if log_open {
                let piece = Answer::Log(buffer[..count].to_vec());
                wire::answer(client, &piece)
                    .map_err(while_doing("send the log to the client, which has left"))?;
            }
        }
    }
}

/// The exit status, or 128 and the signal's number.
fn ended(builder: &Builder) -> Result<Option<u8>> {
    match waitpid(builder.process, Some(WaitPidFlag::WNOHANG)).map_err(while_doing("wait for the builder"))? {
        WaitStatus::Exited(_, status) => Ok(Some(u8::try_from(status & 0xff).unwrap_or(1))),
        WaitStatus::Signaled(_, signal, _) => Ok(Some(u8::try_from(128 + signal as i32).unwrap_or(255))),
        _ => Ok(None),
    }
}

extern "C" fn wake(_: libc::c_int) {}

/// SIGCHLD wakes [`follow`], and waits for it; a request to stop is the broker's, which passes it on by ending.
fn hold_signals() -> Result<()> {
    let set = |signal, handler| {
        // SAFETY: `wake` does nothing, and to ignore a signal runs nothing.
        #[allow(unsafe_code)]
        unsafe { sigaction(signal, &SigAction::new(handler, SaFlags::empty(), SigSet::empty())) }.map(drop)
    };
    set(Signal::SIGCHLD, SigHandler::Handler(wake))
        .and_then(|()| set(Signal::SIGTERM, SigHandler::SigIgn))
        .and_then(|()| set(Signal::SIGINT, SigHandler::SigIgn))
        .and_then(|()| set(Signal::SIGHUP, SigHandler::SigIgn))
        .and_then(|()| SigSet::from(Signal::SIGCHLD).thread_block())
        .map_err(while_doing("prepare for signals"))
}
