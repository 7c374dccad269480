//! Children that are this very program, with another user's rights.
//!
//! On Linux `/proc/self/exe` leads to the program past the directories above it, so a child becomes the other user and starts it then. A Mac
//! has no such path, and the other user often cannot enter the directory that the program lies in (`mktemp -d`, `~/Downloads`). There root
//! starts it, and the child becomes the other user before it does anything else. Who can change the program in its directory could do
//! that before root started it for the first time, too.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::unistd::{Gid, Uid, setgid, setuid};

use super::command::clean_at;
use super::kernel;
use super::watched::{Limits, answer};
use crate::platform::paths;

/// Hidden subcommand: becomes another user and then does what the rest of the words say, `internal-become UID GID [internal-...]`.
pub const BECOME: &str = "internal-become";

/// Owner of nothing: the user that [`check`] tries it with.
const NOBODY: u32 = 65_534;

/// This program cannot be started anew.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path} cannot start itself anew with another user's rights ({reason}), which takes part in most runs: copy it to {program}, and start it \
     there; nothing was changed",
    program = paths::PROGRAM
)]
pub struct CannotStart {
    path: PathBuf,
    reason: String,
}

/// A path that leads to this very program.
pub fn path() -> PathBuf {
    if !kernel::is_mac() {
        return PathBuf::from("/proc/self/exe");
    }
    // Nobody removes a program while it installs itself; a start of what is not there says so.
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from(paths::PROGRAM))
}

/// A command with `program`, which is this one, and the rights of `uid` and `gid` and no others. Only root can start it. It has no
/// terminal (see [`clean_at`]) before it becomes the user.
pub fn as_user(program: &Path, uid: u32, gid: u32) -> Command {
    let mut command = clean_at(program);
    if kernel::is_mac() {
        command.args([BECOME, &uid.to_string(), &gid.to_string()]);
    } else {
        command.uid(uid).gid(gid);
    }
    command
}

/// Finds out, before anything is changed, whether children can be started.
///
/// # Errors
/// When they cannot. On Linux they can.
pub fn check() -> Result<(), CannotStart> {
    let path = path();
    if !kernel::is_mac() {
        return Ok(());
    }
    let limits = Limits::of_time(Duration::from_secs(60));
    match answer(&mut as_user(&path, NOBODY, NOBODY), Vec::new(), limits) {
        Ok(_) => Ok(()),
        Err(error) => Err(CannotStart { path, reason: error.to_string() }),
    }
}

/// What [`BECOME`] does: gives up root's rights for good.
///
/// # Errors
/// When these are no ids, or some of the rights would stay.
pub fn become_user(uid: &OsString, gid: &OsString) -> io::Result<()> {
    let id = |word: &OsString| {
        word.to_str().and_then(|word| word.parse::<u32>().ok()).ok_or(io::ErrorKind::InvalidInput)
    };
    let (uid, gid) = (Uid::from_raw(id(uid)?), Gid::from_raw(id(gid)?));
    kernel::drop_groups()?;
    setgid(gid)?;
    setuid(uid)?;
    if !uid.is_root() && setuid(Uid::from_raw(0)).is_ok() {
        return Err(io::Error::other("root's rights would stay"));
    }
    Ok(())
}
