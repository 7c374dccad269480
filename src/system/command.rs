//! Commands that this tool runs.
//!
//! Root's own `PATH` usually begins with directories below `/nix`, which the `nix` user will own. So a command gets
//! a fixed `PATH` and nothing of the caller's environment, and a program is never looked up anywhere else.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use super::checkpoint;

/// Where programs are looked up.
pub const SAFE_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a command gave no usable output.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program could not be started.
    #[error("cannot run {program}: {source}")]
    Start {
        /// The program's name.
        program: String,
        /// The system's reason.
        source: std::io::Error,
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
}

/// A command with [`SAFE_PATH`], a C locale, no standard input and nothing of the caller's environment. It runs in a
/// process group of its own, so that a Ctrl-C typed at us does not tear an account tool apart halfway.
pub fn clean(program: &str) -> Command {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", SAFE_PATH)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .current_dir("/")
        .process_group(0);
    command
}

/// Runs `program` with `args` through [`clean`]; its standard output when it exits 0.
///
/// # Errors
/// When it cannot be started, or exits with anything but 0.
pub fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<String, CommandError> {
    let output = output(program, args)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = args.iter().map(|arg| arg.as_ref().to_string_lossy().into_owned());
    Err(CommandError::Failed {
        command: std::iter::once(program.to_owned()).chain(words).collect::<Vec<_>>().join(" "),
        status: output.status,
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Runs `program` with `args` through [`clean`] and returns all of what it said, whatever its exit status.
///
/// # Errors
/// When it cannot be started.
pub fn output<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<Output, CommandError> {
    let run = || {
        let child = clean(program).args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        checkpoint::inside_command(child.id());
        let output = child.wait_with_output()?;
        checkpoint::inside("command-ended");
        Ok(output)
    };
    run().map_err(|source| CommandError::Start { program: program.to_owned(), source })
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
    fn a_failure_names_command_and_reason() {
        let error = run("ls", &["/nonexistent"]).unwrap_err().to_string();
        assert!(error.starts_with("ls /nonexistent failed") && error.contains("No such file"), "{error}");
        let error = run("no-such-program", &["x"]).unwrap_err().to_string();
        assert!(error.starts_with("cannot run no-such-program"), "{error}");
    }
}
