//! Commands that this tool runs.
//!
//! Root's own `PATH` usually begins with directories below `/nix`, which the `nix` user will own. So a command gets
//! a fixed `PATH` and nothing of the caller's environment, and a program is never looked up anywhere else.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpid, getsid, setsid};

use super::{checkpoint, own_program};

/// Where programs are looked up.
pub const SAFE_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a command may take. systemd gives a unit 90 s to start or stop, and then ends it by force, which takes as long
/// again at most (`DefaultTimeoutStopSec=` of systemd-system.conf(5)).
const LIMIT: Duration = Duration::from_secs(200);
/// How long is waited for the rest of what a command said, when it has ended and something that it started still holds the pipe.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why a command gave no usable output.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program could not be started.
    #[error("cannot run {program}: {reason}")]
    Start {
        /// The program's name.
        program: String,
        /// The system's reason.
        reason: std::io::Error,
    },
    /// The program ran and said no.
    #[error("{command} failed ({status}): {stderr}")]
    Failed {
        /// The program with its arguments, as one would type it.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it wrote to standard error, trimmed.
        stderr: String,
    },
    /// The program did not end in time, and was ended with what it had started.
    #[error(
        "{command} did not end within {seconds} s and was killed: find out what it waits for, and try again"
    )]
    TimedOut {
        /// The program with its arguments.
        command: String,
        /// The limit.
        seconds: u64,
    },
}

/// A command with [`SAFE_PATH`], a C locale, no standard input and nothing of the caller's environment. It leads a session of its own, so
/// that a Ctrl-C typed at us does not tear an account tool apart halfway, and a program of another user's cannot reach our terminal
/// (`/dev/tty`, `TIOCSTI`).
pub fn clean(program: &str) -> Command {
    clean_at(Path::new(program))
}

/// [`clean`], of a program at a path.
pub fn clean_at(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", SAFE_PATH).env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).current_dir("/");
    lead_a_session(&mut command);
    command
}

/// Makes a command the leader of a session, and of a process group, whose id is its process id.
#[allow(unsafe_code)] // the standard library's own way to it is unstable (`process_setsid`)
fn lead_a_session(command: &mut Command) {
    let lead = || match setsid() {
        // A child that becomes the command (`exec`) leads one already.
        Err(Errno::EPERM) if getsid(None) == Ok(getpid()) => Ok(()),
        other => Ok(other.map(drop)?),
    };
    // SAFETY: what runs between fork and exec makes three system calls, which are async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(lead) };
}

/// This program's own `internal-...` command, with the rights of `uid` and `gid` and no others.
pub fn own_child(command: &str, uid: u32, gid: u32) -> Command {
    let mut child = own_program::as_user(&own_program::path(), uid, gid);
    child.arg(command);
    child
}

/// Runs `program` with `args` through [`clean`]; its standard output when it exits 0.
///
/// # Errors
/// When it cannot be started, does not end in time, or exits with anything but 0.
pub fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<String, CommandError> {
    run_with_input(program, args, &[])
}

/// [`run`], of a command that reads `input`, which is shorter than a pipe holds (4 KiB).
///
/// # Errors
/// As [`run`].
pub fn run_with_input<S: AsRef<OsStr>>(
    program: &str,
    args: &[S],
    input: &[u8],
) -> Result<String, CommandError> {
    said_well(output_with_input(program, args, input)?, program, args)
}

/// [`run`], however long it takes; with the rights of this uid and gid and no others, if they are given.
///
/// # Errors
/// When it cannot be started, or exits with anything but 0.
pub fn run_without_limit<S: AsRef<OsStr>>(
    program: &str,
    args: &[S],
    user: Option<(u32, u32)>,
) -> Result<String, CommandError> {
    let mut command = clean(program);
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    said_well(output_of(Duration::MAX, command, program, args, &[])?, program, args)
}

fn said_well<S: AsRef<OsStr>>(output: Output, program: &str, args: &[S]) -> Result<String, CommandError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(CommandError::Failed {
        command: typed(program, args),
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Runs `program` with `args` through [`clean`] and returns all of what it said, whatever its exit status.
///
/// # Errors
/// When it cannot be started, or does not end in time.
pub fn output<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<Output, CommandError> {
    output_within(limit(), program, args, &[])
}

/// [`output`], of a command that reads `input`, which is shorter than a pipe holds (4 KiB).
///
/// # Errors
/// As [`output`].
pub fn output_with_input<S: AsRef<OsStr>>(
    program: &str,
    args: &[S],
    input: &[u8],
) -> Result<Output, CommandError> {
    output_within(limit(), program, args, input)
}

fn output_within<S: AsRef<OsStr>>(
    limit: Duration,
    program: &str,
    args: &[S],
    input: &[u8],
) -> Result<Output, CommandError> {
    output_of(limit, clean(program), program, args, input)
}

fn output_of<S: AsRef<OsStr>>(
    limit: Duration,
    mut command: Command,
    program: &str,
    args: &[S],
    input: &[u8],
) -> Result<Output, CommandError> {
    let start = |reason| CommandError::Start { program: program.to_owned(), reason };
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child =
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(start)?;
    if let Some(mut pipe) = child.stdin.take() {
        // One that did not want it says why in its own words.
        let _ = pipe.write_all(input);
    }
    checkpoint::inside_command(child.id());
    let (done, all_done) = channel();
    let stdout = collect(child.stdout.take(), done.clone());
    let stderr = collect(child.stderr.take(), done);
    let Some(status) = wait(&mut child, limit).map_err(start)? else {
        // Its process group is its own, see `clean`. One that is gone is what is wanted.
        let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
        let _ = child.wait();
        return Err(CommandError::TimedOut { command: typed(program, args), seconds: limit.as_secs() });
    };
    checkpoint::inside("command-ended");
    // Nothing is sent: both readers drop their end when they are done.
    let _ = all_done.recv_timeout(LAST_WORDS);
    let take =
        |bytes: &Mutex<Vec<u8>>| std::mem::take(&mut *bytes.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Output { status, stdout: take(&stdout), stderr: take(&stderr) })
}

/// Reads a pipe to its end on a thread of its own; `done` is dropped then.
fn collect(pipe: Option<impl Read + Send + 'static>, done: Sender<()>) -> Arc<Mutex<Vec<u8>>> {
    let all = Arc::new(Mutex::new(Vec::new()));
    let bytes = Arc::clone(&all);
    thread::spawn(move || {
        let _done = done;
        let Some(mut pipe) = pipe else { return };
        let mut buffer = [0; 8192];
        // What came before an error is what there is.
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            bytes.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..count]);
        }
    });
    all
}

/// Waits for a child that nobody else waits for; `None` when the time is over.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    let ended = Ended::of(child)?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = limit.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        ended.wait(left);
    }
}

/// What tells that a child has ended.
#[cfg(target_os = "linux")]
struct Ended(std::os::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl Ended {
    fn of(child: &Child) -> std::io::Result<Self> {
        use rustix::process::{Pid, PidfdFlags, pidfd_open};
        Ok(Self(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?))
    }

    /// Returns when the child has ended, at the latest after `left`; or earlier, after a signal.
    fn wait(&self, left: Duration) {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut files = [PollFd::new(std::os::fd::AsFd::as_fd(&self.0), PollFlags::POLLIN)];
        let _ = poll(&mut files, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
    }
}

/// Elsewhere one looks again and again.
#[cfg(not(target_os = "linux"))]
struct Ended;

#[cfg(not(target_os = "linux"))]
impl Ended {
    fn of(_: &Child) -> std::io::Result<Self> {
        Ok(Self)
    }

    fn wait(&self, left: Duration) {
        thread::sleep(left.min(Duration::from_millis(5)));
    }
}

/// A command as one would type it.
fn typed<S: AsRef<OsStr>>(program: &str, args: &[S]) -> String {
    let words = args.iter().map(|arg| arg.as_ref().to_string_lossy().into_owned());
    std::iter::once(program.to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

#[cfg(not(feature = "checkpoints"))]
fn limit() -> Duration {
    LIMIT
}

/// Tests of machines on which a command hangs do not wait that long.
#[cfg(feature = "checkpoints")]
fn limit() -> Duration {
    let seconds = std::env::var("NIX_UNROOT_COMMAND_LIMIT").ok().and_then(|text| text.parse().ok());
    seconds.map_or(LIMIT, Duration::from_secs)
}

/// A command as one would paste it into a shell.
pub fn shell_words(words: &[String]) -> String {
    let quoted = |word: &String| {
        let plain = !word.is_empty()
            && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte));
        if plain { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_ours_alone() {
        let seen = run("env", &[] as &[&str]).unwrap();
        let mut lines: Vec<_> = seen.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["LC_ALL=C.UTF-8", &format!("PATH={SAFE_PATH}")]);
    }

    #[test]
    fn a_command_leads_a_session_without_our_terminal() {
        let mut child = clean("sleep").arg("30").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        let (session, group) = (getsid(Some(pid)), nix::unistd::getpgid(Some(pid)));
        killpg(pid, Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert_eq!((session, group), (Ok(pid), Ok(pid)));
        let seen = run("sh", &["-c", "(exec </dev/tty) 2>/dev/null && echo reached || echo none"]).unwrap();
        assert_eq!(seen, "none\n");
    }

    #[test]
    fn a_leader_may_become_a_command() {
        let mut leader = clean("true");
        lead_a_session(&mut leader);
        assert!(leader.status().unwrap().success());
    }

    #[test]
    fn a_failure_names_command_and_reason() {
        let error = run("ls", &["/nonexistent"]).unwrap_err().to_string();
        assert!(error.starts_with("ls /nonexistent failed") && error.contains("No such file"), "{error}");
        // As commands print it; the reason is not said again.
        let error = format!("{:#}", anyhow::Error::from(run("no-such-program", &["x"]).unwrap_err()));
        assert_eq!(error, "cannot run no-such-program: No such file or directory (os error 2)");
    }

    #[test]
    fn what_hangs_is_ended_with_its_children() {
        let marker = format!("sleep 98{}", std::process::id());
        let script = format!("{marker} & echo said; wait");
        let began = Instant::now();
        let error = output_within(Duration::from_millis(300), "sh", &["-c", &script], &[]).unwrap_err();
        assert!(error.to_string().contains("did not end within 0 s"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20));
        let left = run("sh", &["-c", &format!("pgrep -fx '{marker}' || true")]).unwrap();
        assert_eq!(left, "", "still there");
    }

    #[test]
    fn a_pipe_that_somebody_keeps_open_is_not_waited_for() {
        let output =
            output_within(Duration::from_secs(60), "sh", &["-c", "echo said; sleep 20 & exit 3"], &[])
                .unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), &b"said\n"[..]));
    }

    #[test]
    fn a_remedy_can_be_pasted() {
        let words = ["chgrp", "nix", "/etc/it's here", ""].map(str::to_owned);
        assert_eq!(shell_words(&words), r"chgrp nix '/etc/it'\''s here' ''");
    }
}
