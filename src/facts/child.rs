//! Children that do what this process must not do itself, with a time limit and a limit on what they may say.
//!
//! Root neither executes what lies below `/nix` nor parses what another user can write; it starts this same program
//! again with a hidden subcommand and the rights of `nobody`. The child prints one JSON document.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{database, userns};
use crate::system::command::{clean, clean_at};
use crate::system::watched::{Limits, Watched, confine};
use crate::system::{kernel, own_program};

/// The kernel's overflow uid and gid, `nobody` on every distribution: owner of nothing.
pub const NOBODY: u32 = 65_534;
/// Hidden subcommand: reads Nix's database, `internal-read-db FILE`.
pub const READ_DATABASE: &str = "internal-read-db";
/// Hidden subcommand: tries to make a user namespace, `internal-probe-userns`.
pub const PROBE_USERNS: &str = "internal-probe-userns";
/// Hidden subcommand: becomes `PROGRAM --version` under limits, `internal-run-version PROGRAM`.
pub const RUN_VERSION: &str = "internal-run-version";

/// Answers a hidden subcommand in a child that [`gather`](super::gather) started: `name` is the subcommand, `args` the rest.
/// Its answer goes to standard output, which is the protocol between the two; a process that is no such child gets
/// the same answer and harms nothing. `None` when `name` is none of the hidden subcommands; otherwise the exit
/// status.
pub fn child_main(name: &str, args: &[std::ffi::OsString]) -> Option<u8> {
    let done = match (name, args) {
        (READ_DATABASE, [path]) => answer(&limit().and_then(|()| database::read_here(Path::new(path)))),
        (PROBE_USERNS, []) => answer(&userns::probe_here()),
        (RUN_VERSION, [program]) => become_version(program),
        (READ_DATABASE | PROBE_USERNS | RUN_VERSION, _) => Err(io::ErrorKind::InvalidInput.into()),
        _ => return None,
    };
    Some(u8::from(done.is_err()))
}

/// A [`clean`] command that runs as `nobody` when this process is root. The standard library drops the supplementary
/// groups together with the uid.
pub(crate) fn as_nobody(program: &str) -> Command {
    let mut command = clean(program);
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

/// The same of `helper`, which answers hidden subcommands, as the given user.
pub(crate) fn helper_as(helper: &Path, (uid, gid): (u32, u32)) -> Command {
    match nix::unistd::geteuid().is_root() && uid != 0 {
        true => own_program::as_user(helper, uid, gid),
        false => clean_at(helper),
    }
}

/// Asks a hidden subcommand of `helper` as the given user (when this process is root), and parses its answer.
///
/// # Errors
/// In words: that it could not start, said nothing usable in time, or its own error.
pub(crate) fn ask<T: DeserializeOwned, S: AsRef<OsStr>>(
    helper: &Path,
    user: (u32, u32),
    args: &[S],
    timeout: Duration,
) -> Result<T, String> {
    let mut command = helper_as(helper, user);
    let output = output(command.args(args), timeout, 1 << 20).map_err(|error| cannot_run(helper, &error))?;
    serde_json::from_slice::<Result<T, String>>(&output.stdout)
        .map_err(|_| format!("the child that looks at it gave no answer ({})", output.status))?
}

/// Runs `command`, which is a [`clean`] one; it is ended after `timeout` or after `limit` bytes of output, and what it leaves running with
/// it. What it says on standard error is nobody's to read.
pub(crate) fn output(command: &mut Command, timeout: Duration, limit: usize) -> io::Result<Output> {
    let limits = Limits { output: limit, ..Limits::of_time(timeout) };
    let child = Watched::start(command.stderr(Stdio::null()), Vec::new(), limits.output)?;
    child.end(limits).map(|(output, _)| output)
}

/// A child that is `nobody` can start this program only if everyone may execute it.
fn cannot_run(helper: &Path, error: &io::Error) -> String {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return format!("the child that looks at it cannot run: {error}");
    }
    let program = std::fs::read_link(helper).unwrap_or_else(|_| helper.to_owned());
    format!(
        "the child that looks at it cannot run: others may not execute {} (chmod 755 it)",
        program.display()
    )
}

fn answer<T: Serialize>(result: &Result<T, String>) -> io::Result<()> {
    serde_json::to_writer(io::stdout().lock(), result).map_err(io::Error::from)
}

/// Limits for a process that handles what it cannot trust: it writes no file, and has some time and memory.
fn limit() -> Result<(), String> {
    confine(Duration::from_secs(300), false)
        .map_err(|error| format!("cannot limit the child that looks at it: {error}"))
}

fn become_version(program: &OsStr) -> io::Result<()> {
    limit().map_err(io::Error::other)?;
    let seconds = 5;
    setrlimit(Resource::RLIMIT_CPU, seconds, seconds)?;
    // The lock of a run among them: whoever this program is, he could keep it, or give it up.
    kernel::close_others_on_exec()?;
    Err(clean(&program.to_string_lossy()).env("HOME", "/var/empty").arg("--version").exec())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = clean("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_child_that_hangs_or_floods_is_ended_with_its_children() {
        let started = Instant::now();
        let hang = output(&mut shell("sleep 60 & sleep 60"), Duration::from_millis(100), 100).unwrap_err();
        assert_eq!(hang.kind(), io::ErrorKind::TimedOut);
        let closed = output(&mut shell("exec >&-; sleep 60"), Duration::from_millis(100), 100).unwrap_err();
        assert_eq!(closed.kind(), io::ErrorKind::TimedOut);
        let flood =
            output(&mut shell("while :; do echo yes; done"), Duration::from_secs(20), 100).unwrap_err();
        assert_eq!(flood.kind(), io::ErrorKind::FileTooLarge);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        assert_eq!(output(&mut shell("echo yes"), Duration::from_secs(20), 100).unwrap().stdout, b"yes\n");
    }

    #[test]
    fn a_helper_that_speaks_something_else_is_an_error() {
        let error =
            ask::<u32, _>(Path::new("/bin/echo"), (0, 0), &["5"], Duration::from_secs(5)).unwrap_err();
        assert!(error.contains("gave no answer"), "{error}");
        let five =
            ask::<u32, _>(Path::new("/bin/echo"), (0, 0), &[r#"{"Ok":5}"#], Duration::from_secs(5)).unwrap();
        assert_eq!(five, 5);
    }

    #[test]
    fn a_program_that_others_may_not_execute_is_named() {
        let error =
            ask::<u32, _>(Path::new("/etc/passwd"), (0, 0), &["x"], Duration::from_secs(5)).unwrap_err();
        assert!(error.ends_with("others may not execute /etc/passwd (chmod 755 it)"), "{error}");
    }

    #[test]
    fn other_subcommands_are_not_ours() {
        assert_eq!(child_main("migrate", &[]), None);
        assert_eq!(child_main(READ_DATABASE, &[]), Some(1));
    }

    #[test]
    fn nobody_is_really_nobody() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let ids = output(as_nobody("id").arg("-G"), Duration::from_secs(5), 100).unwrap();
        assert_eq!(String::from_utf8_lossy(&ids.stdout).trim(), "65534");
    }
}
