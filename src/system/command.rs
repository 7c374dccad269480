//! Commands that this tool runs.
//!
//! Root's own `PATH` usually begins with directories below `/nix`, which the `nix` user will own. So a command gets
//! a fixed `PATH` and nothing of the caller's environment, and a program is never looked up anywhere else.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{getpid, getsid, setsid};

use super::text::printable;
use super::watched::{Limits, Watched};
use super::{checkpoint, own_program};

/// Where programs are looked up.
pub const SAFE_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// How long a command may take. systemd gives a unit 90 s to start or stop, and then ends it by force, which takes as long
/// again at most (`DefaultTimeoutStopSec=` of systemd-system.conf(5)).
const LIMIT: Duration = Duration::from_secs(200);
/// How much a command may say, in bytes. What is longer is an error and not cut, because it would be read as if it were whole.
const OUTPUT_LIMIT: usize = 64 << 20;

/// Why a command gave no usable output.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program could not be started, or said too much.
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
        /// What it wrote to standard error, trimmed and printable.
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

/// Has the kernel ask a command to end (SIGTERM) when the thread that starts it ends, however that comes about; only on Linux.
#[allow(unsafe_code)] // there is no other way between fork and exec
pub fn ends_with_us(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        let ask = || Ok(set_parent_process_death_signal(Some(Signal::TERM))?);
        // SAFETY: what runs between fork and exec makes one system call, which is async-signal-safe, and allocates nothing.
        unsafe { command.pre_exec(ask) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
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

/// [`run`], however long it takes.
///
/// # Errors
/// When it cannot be started, or exits with anything but 0.
pub fn run_without_limit<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<String, CommandError> {
    said_well(output_within(Duration::MAX, program, args, &[])?, program, args)
}

/// [`run`] with the rights of this uid and gid and no others. That user may stop it, so it ends after `limit`, with all it started.
///
/// # Errors
/// As [`run`].
pub fn run_as<S: AsRef<OsStr>>(
    (uid, gid): (u32, u32),
    limit: Duration,
    program: &str,
    args: &[S],
) -> Result<String, CommandError> {
    let mut command = clean(program);
    command.uid(uid).gid(gid);
    said_well(output_of(Limits::of_time(limit), command, program, args, &[])?, program, args)
}

/// For a command of root's, which may leave a program running that it is there to start.
fn ours(time: Duration) -> Limits<'static> {
    Limits { time, output: OUTPUT_LIMIT, leaves_nothing: false, cancelled: None }
}

fn said_well<S: AsRef<OsStr>>(output: Output, program: &str, args: &[S]) -> Result<String, CommandError> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(CommandError::Failed {
        command: typed(program, args),
        status: output.status,
        stderr: printable(String::from_utf8_lossy(&output.stderr).trim()),
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
    output_of(ours(limit), clean(program), program, args, input)
}

fn output_of<S: AsRef<OsStr>>(
    limits: Limits<'_>,
    mut command: Command,
    program: &str,
    args: &[S],
    input: &[u8],
) -> Result<Output, CommandError> {
    let start = |reason| CommandError::Start { program: program.to_owned(), reason };
    let child = Watched::start(command.args(args).stderr(Stdio::piped()), input.to_vec(), limits.output)
        .map_err(start)?;
    checkpoint::inside_command(child.id());
    // One that did not want its input says why in its own words.
    let (output, _) = child.end(limits).map_err(|reason| match reason.kind() {
        ErrorKind::TimedOut => {
            CommandError::TimedOut { command: typed(program, args), seconds: limits.time.as_secs() }
        }
        _ => start(reason),
    })?;
    checkpoint::inside("command-ended");
    Ok(output)
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
    use std::time::Instant;

    use nix::sys::signal::{Signal, killpg};
    use nix::unistd::Pid;

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
    fn a_user_who_stops_a_command_of_his_does_not_stop_us() {
        let me = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let began = Instant::now();
        let error = run_as(me, Duration::from_secs(1), "sh", &["-c", "kill -STOP $$"]).unwrap_err();
        assert!(matches!(error, CommandError::TimedOut { seconds: 1, .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20));
        let error = run_as(me, Duration::from_secs(60), "sh", &["-c", "printf 'a\\033[2Jb' >&2; exit 1"]);
        assert!(error.unwrap_err().to_string().ends_with(": ab"));
    }

    #[test]
    fn a_remedy_can_be_pasted() {
        let words = ["chgrp", "nix", "/etc/it's here", ""].map(str::to_owned);
        assert_eq!(shell_words(&words), r"chgrp nix '/etc/it'\''s here' ''");
    }
}
