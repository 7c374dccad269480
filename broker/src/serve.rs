//! The process that waits for the daemon's clients, and forks one for each build.
//!
//! It lives long and is root's, so it does little: from a client it takes the uid that the kernel noted, and nothing else.

use crate::args::Serve;
use crate::slots::Slots;
use crate::work::Work;
use crate::{Failure, Result, log, processes, start, while_doing, worker};
use helper_common::peer;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, geteuid, setsid};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, lchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// How long nobody is accepted after the machine had no process or file to spare.
const PAUSE: Duration = Duration::from_millis(100);

/// A process that looks after a build.
#[derive(Debug)]
struct Worker {
    process: Pid,
    /// Ends when it does.
    alive: OwnedFd,
}

/// Serves until it is killed.
///
/// # Errors
/// When this is not root, or the socket or the directory cannot be had.
pub fn serve(serve: &Serve) -> Result<()> {
    if !geteuid().is_root() {
        return Err(Failure::new(
            "only root can run builds under other uids; 'nix-build-broker client' is for everybody else",
        ));
    }
    #[cfg(target_os = "macos")]
    if serve.profile.is_none() {
        return Err(Failure::new(
            "--profile is missing: without a sandbox profile, inputs are not read-only",
        ));
    }
    let work = Work::open(&serve.work, &serve.store)?;
    let _lock = work.lock()?;
    for uid in serve.uids.iter() {
        processes::end_all(uid).and_then(|()| work.clear(uid))?;
    }
    let listener = bind(&serve.socket, serve.client)?;
    // Nobody ever writes there: it ends with this process.
    let (broker, ours) = start::pipe()?;
    let mut slots = Slots::new(serve.uids);
    log::line(format_args!("ready, for uid {} at {}", serve.client.0, serve.socket.display()));
    loop {
        wait(&listener, &mut slots)?;
        let Some(uid) = slots.free() else { continue };
        let Some(client) = accept(&listener, serve.client.0)? else { continue };
        let (alive, its) = start::pipe()?;
        // SAFETY: this process has a single thread, so the child may do whatever the parent may.
        #[allow(unsafe_code)]
        match unsafe { nix::unistd::fork() } {
            Ok(ForkResult::Parent { child }) => slots.take(uid, Worker { process: child, alive }),
            Ok(ForkResult::Child) => {
                drop((ours, listener));
                // A stop of the broker's process group is not for those who tidy up.
                let _ = setsid();
                worker::run(&client, &broker, uid, &work, serve);
                drop(its);
                std::process::exit(0)
            }
            Err(error) => {
                log::line(format_args!("cannot fork for a build: {error}"));
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// Waits for a client, if a uid is free, and for builds that end. Clients without a uid wait in the socket's queue.
fn wait(listener: &UnixListener, slots: &mut Slots<Worker>) -> Result<()> {
    let mut files: Vec<_> =
        slots.workers().map(|worker| PollFd::new(worker.alive.as_fd(), PollFlags::POLLIN)).collect();
    if slots.free().is_some() {
        files.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
    }
    match poll(&mut files, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR | Errno::EAGAIN | Errno::ENOMEM) => {}
        Err(error) => return Err(while_doing("wait for clients")(error)),
    }
    slots.retain(|_, worker| {
        let mut file = [PollFd::new(worker.alive.as_fd(), PollFlags::POLLIN)];
        let gone = poll(&mut file, PollTimeout::ZERO).is_ok_and(|count| count > 0);
        // It has closed its end, so it is about to end, if it has not.
        gone && waitpid(worker.process, None) != Err(Errno::EINTR)
    });
    Ok(())
}

/// Nothing when nobody is there any more, or somebody who is not served.
fn accept(listener: &UnixListener, uid: u32) -> Result<Option<UnixStream>> {
    let client = match listener.accept() {
        Ok((client, _)) => client,
        Err(error) => {
            return match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
                Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED => Ok(None),
                Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS => {
                    log::line(format_args!("cannot accept a connection: {error}"));
                    std::thread::sleep(PAUSE);
                    Ok(None)
                }
                _ => Err(while_doing("accept a connection")(error)),
            };
        }
    };
    // macOS hands the listener's mode down.
    client.set_nonblocking(false).map_err(while_doing("prepare a connection"))?;
    match peer::of(&client) {
        Ok(peer) if peer.uid == uid => Ok(Some(client)),
        Ok(peer) => {
            log::line(format_args!("refused a connection of uid {} (pid {})", peer.uid, peer.pid));
            Ok(None)
        }
        Err(failure) => {
            log::line(failure);
            Ok(None)
        }
    }
}

/// Makes the socket, which only the daemon's account can open. Its directory is root's.
fn bind(path: &Path, (uid, gid): (u32, u32)) -> Result<UnixListener> {
    let cannot = |what: &str| while_doing::<std::io::Error>(format!("{what} the socket {}", path.display()));
    match std::fs::symlink_metadata(path) {
        // That of a broker which is gone: there is no other while the lock is ours.
        Ok(found) if found.file_type().is_socket() => {
            std::fs::remove_file(path).map_err(cannot("replace"))?
        }
        Ok(_) => return Err(Failure::new(format!("{} is there, and is no socket", path.display()))),
        Err(_) => {}
    }
    let mask = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(mask);
    let listener = bound.map_err(cannot("make"))?;
    lchown(path, Some(uid), Some(gid)).map_err(cannot("hand over"))?;
    // A client may leave between poll and accept.
    listener.set_nonblocking(true).map_err(cannot("prepare"))?;
    Ok(listener)
}
