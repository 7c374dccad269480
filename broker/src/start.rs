//! The builder's process.

use crate::args::Serve;
use crate::policy::Build;
use crate::{Failure, Result, platform, while_doing};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, Gid, Pid, Uid, chdir, execve, setgid, setsid, setuid};
use std::convert::Infallible;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

/// A builder that runs.
#[derive(Debug)]
pub struct Builder {
    /// Its process, which leads a session.
    pub process: Pid,
    /// What it writes to standard output and standard error.
    pub log: OwnedFd,
}

/// Starts it. Trouble on the way to the program is a line of the log, and exit status 1.
///
/// # Errors
/// When there can be no further process.
pub fn start(work: &Path, uid: u32, serve: &Serve, build: &Build) -> Result<Builder> {
    let (log, writing) = pipe()?;
    let null = File::open("/dev/null").map_err(while_doing("open /dev/null"))?;
    // SAFETY: this process has a single thread, so the child may do whatever the parent may.
    #[allow(unsafe_code)]
    match unsafe { nix::unistd::fork() }.map_err(while_doing("fork"))? {
        ForkResult::Parent { child } => Ok(Builder { process: child, log }),
        ForkResult::Child => {
            let failed = match stdio(&null, &writing).and_then(|()| become_builder(work, uid, serve, build)) {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            crate::log::line(failed);
            std::process::exit(1)
        }
    }
}

/// A pipe that no builder inherits by accident.
///
/// # Errors
/// When there is no file to spare.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (reading, writing) = std::io::pipe().map_err(while_doing("make a pipe"))?;
    Ok((reading.into(), writing.into()))
}

fn stdio(null: &File, log: &OwnedFd) -> Result<()> {
    nix::unistd::dup2_stdin(null)
        .and_then(|()| nix::unistd::dup2_stdout(log))
        .and_then(|()| nix::unistd::dup2_stderr(log))
        .map_err(while_doing("connect the builder's log"))
}

/// Everything between the fork and the program, in this order: the world, the limits, the ids, and nothing of root after that.
fn become_builder(work: &Path, uid: u32, serve: &Serve, build: &Build) -> Result<Infallible> {
    setsid().map_err(while_doing("start a session"))?;
    platform::enter(work, serve, build)?;
    let dir = platform::build_dir(work);
    chdir(&dir).map_err(while_doing(format!("change to {}", dir.display())))?;
    setrlimit(Resource::RLIMIT_CORE, 0, nix::libc::RLIM_INFINITY)
        .or_else(|_| setrlimit(Resource::RLIMIT_CORE, 0, 0))
        .map_err(while_doing("rule out core dumps"))?;
    umask(Mode::from_bits_truncate(0o022));
    default_signals()?;
    drop_root(uid, serve.gid)?;
    let (program, words) = platform::command(serve, build, &dir)?;
    execve(&program, &words, &build.env)
        .map_err(while_doing(format!("execute {}", crate::log::shown(program.to_bytes()))))
}

/// What this program ignores, or holds back, is not to be ignored or held back by the builder.
fn default_signals() -> Result<()> {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGPIPE, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
        // SAFETY: the default action runs no code of this process.
        #[allow(unsafe_code)]
        unsafe { sigaction(signal, &action) }.map_err(while_doing("reset a signal"))?;
    }
    SigSet::empty().thread_set_mask().map_err(while_doing("let signals in"))
}

/// Groups first, the user last; then none of it can be undone.
fn drop_root(uid: u32, gid: u32) -> Result<()> {
    // SAFETY: a list of no groups; nothing is read.
    #[allow(unsafe_code)]
    let groups = unsafe { libc::setgroups(0, std::ptr::null()) };
    if groups != 0 {
        return Err(while_doing("drop supplementary groups")(std::io::Error::last_os_error()));
    }
    setgid(Gid::from_raw(gid)).map_err(while_doing(format!("become group {gid}")))?;
    setuid(Uid::from_raw(uid)).map_err(while_doing(format!("become user {uid}")))?;
    if setuid(Uid::from_raw(0)).is_ok() {
        return Err(Failure::new(format!("uid {uid} can become root again")));
    }
    platform::no_new_privileges().map_err(while_doing("rule out new privileges"))
}
