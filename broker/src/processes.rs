//! Ending every process of a build uid.

use crate::{Failure, Result, platform, while_doing};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, Uid, setuid};
use std::time::{Duration, Instant};

/// How long processes that were killed may take to die.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kills all that a build left running, and makes sure that nothing of its uid is alive. Afterwards nobody can have a file of the build open.
///
/// # Errors
/// When something lives on. The uid must not be used then, and outputs must not be taken.
pub fn end_all(uid: u32) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    while platform::is_alive(uid)? {
        kill_as(uid)?;
        if Instant::now() > end {
            return Err(Failure::new(format!(
                "a process of build uid {uid} cannot be killed; see ps -U {uid}"
            )));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
    Ok(())
}

/// A child with that uid signals "everybody that I may", which the kernel does at once: between looking and killing, one by one, a process
/// could fork. (On macOS the child may be among the killed.)
fn kill_as(uid: u32) -> Result<()> {
    // SAFETY: this process has a single thread, so the child may do whatever the parent may.
    #[allow(unsafe_code)]
    match unsafe { nix::unistd::fork() }.map_err(while_doing("fork"))? {
        ForkResult::Parent { child } => {
            waitpid(child, None).map_err(while_doing("wait for a child"))?;
            Ok(())
        }
        ForkResult::Child => {
            // All three ids: a process of the build may not stop this one, but also nothing of root may be reached by it.
            if uid != 0 && setuid(Uid::from_raw(uid)).is_ok() {
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            }
            // SAFETY: ends this process without touching anything.
            #[allow(unsafe_code)]
            unsafe {
                libc::_exit(0)
            }
        }
    }
}

/// Linux: does `/proc/PID/status` tell of a live process with this uid, as real, effective, saved or file system uid? A zombie does nothing any more.
#[cfg(any(target_os = "linux", test, fuzzing))]
#[must_use]
pub fn is_of(status: &[u8], uid: u32) -> bool {
    let uid = uid.to_string();
    let field = |name: &[u8]| status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name));
    let dead = field(b"State:\t").is_some_and(|state| state.starts_with(b"Z") || state.starts_with(b"X"));
    let mut ids = field(b"Uid:\t").unwrap_or_default().split(|byte| *byte == b'\t');
    !dead && ids.any(|id| id == uid.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_a_process_is() {
        let status =
            |state: &str, ids: &str| format!("Name:\tx\nState:\t{state}\nUid:\t{ids}\nGid:\t7\t7\t7\t7\n");
        for (text, expected) in [
            (status("S (sleeping)", "7\t7\t7\t7"), true),
            (status("R (running)", "0\t0\t7\t0"), true),
            (status("Z (zombie)", "7\t7\t7\t7"), false),
            (status("S (sleeping)", "77\t0\t0\t0"), false),
            ("Name:\tUid:\nGid:\t7".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(is_of(text.as_bytes(), 7), expected, "{text:?}");
        }
    }
}
