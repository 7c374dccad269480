//! What a connection's daemon leaves running when it ends.
//!
//! The acceptor and each daemon are subreapers (prctl(2)): what loses its parent becomes a child of the daemon, and when that ends, of the
//! acceptor. So a child of the acceptor that serves no connection is left over.

use crate::connections::Connections;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A child that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its number.
    pub pid: i32,
    /// What it was killed by.
    pub signal: Option<Signal>,
}

/// Waits for children that have ended, until there are none.
pub fn reap() -> impl Iterator<Item = Ended> {
    std::iter::from_fn(|| {
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, _)) => return Some(Ended { pid: pid.as_raw(), signal: None }),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    return Some(Ended { pid: pid.as_raw(), signal: Some(signal) });
                }
                Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => return None,
            }
        }
    })
}

/// Has everything ended that this process has to wait for?
pub fn none(connections: &Connections) -> bool {
    connections.is_empty() && system::none()
}

pub use system::kill_all;

#[cfg(target_os = "linux")]
mod system {
    use crate::connections::Connections;
    use crate::log;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::{Pid, getpid};

    /// Kills all children that serve no connection. What those leave behind becomes a child in turn, and their end is a
    /// reason to come back.
    ///
    /// Build users are not the caller's own uid, but their namespaces are the caller's: their owner has all capabilities in
    /// them (user_namespaces(7)).
    pub fn kill_all(connections: &Connections) {
        match children() {
            Ok(children) => {
                for pid in children.into_iter().filter(|pid| !connections.contains(*pid)) {
                    // One that has just ended is what is wanted.
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            Err(error) => log::line(format_args!("cannot look for what a connection left running: {error}")),
        }
    }

    /// The children of this process, which has one thread (proc_tid_children(5)). Exact for those that have become children for good.
    fn children() -> std::io::Result<Vec<i32>> {
        let own = getpid();
        let text = std::fs::read_to_string(format!("/proc/self/task/{own}/children"))?;
        Ok(text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect())
    }

    /// No child is left, of whomever it was.
    pub fn none() -> bool {
        children().is_ok_and(|children| children.is_empty())
    }
}

/// On macOS what loses its parent becomes launchd's, and is not seen here. It has the store owner's uid; builds are the broker's affair.
#[cfg(not(target_os = "linux"))]
mod system {
    use crate::connections::Connections;

    /// There is nothing that could be told from other processes.
    pub fn kill_all(_: &Connections) {}

    /// Nothing besides connections is waited for.
    pub fn none() -> bool {
        true
    }
}
