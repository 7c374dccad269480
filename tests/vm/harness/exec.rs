//! Commands with a time limit, whose failure says everything one wants to read in a test log.

use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a command may take when nobody says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// What a command did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The command, as one would like to read it.
    pub command: String,
    /// Exit status; 128 + signal when a signal ended it.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Outcome {
    /// Standard output without the last newline, or an error with all that was said.
    pub fn ok(self) -> Result<String> {
        if self.status != 0 {
            bail!("{self}");
        }
        Ok(self.stdout.trim_end().to_owned())
    }

    /// Requires this exit status.
    pub fn exits(self, status: i32) -> Result<Outcome> {
        if self.status != status {
            bail!("expected exit status {status}: {self}");
        }
        Ok(self)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "`{}` exited {}", self.command, self.status)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.is_empty() {
                writeln!(f, "--- {name}\n{}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

/// A command on the host, with a fixed `PATH` and nothing else of the environment.
pub fn host(program: &str) -> Limited {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
    Limited { command, shown: None, timeout: DEFAULT_TIMEOUT, input: None }
}

/// Whether the host has this program.
pub fn on_host(program: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .any(|dir| std::path::Path::new(dir).join(program).exists())
}

/// A command that gets killed, with all its children, when its time is over.
#[derive(Debug)]
pub struct Limited {
    command: Command,
    shown: Option<String>,
    timeout: Duration,
    input: Option<Vec<u8>>,
}

impl Limited {
    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// What to show as the command in messages.
    pub fn shown(mut self, text: impl Into<String>) -> Self {
        self.shown = Some(text.into());
        self
    }

    /// Another time limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// What the command reads as standard input.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Runs it; standard output, or an error when it failed.
    pub fn ok(self) -> Result<String> {
        self.run()?.ok()
    }

    /// Runs it with its output shown as it comes; an error when it failed.
    #[allow(dead_code)] // Only the demonstration is watched.
    pub fn watched(mut self) -> Result<()> {
        let shown = self.shown.take().unwrap_or_else(|| format!("{:?}", self.command));
        let status =
            self.command.stdin(Stdio::null()).status().with_context(|| format!("cannot run `{shown}`"))?;
        anyhow::ensure!(status.success(), "`{shown}` failed: {status}");
        Ok(())
    }

    /// Runs it, whatever it returns.
    pub fn run(self) -> Result<Outcome> {
        let (status, stdout, stderr, command) = self.collect()?;
        let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Outcome { command, status, stdout: text(stdout), stderr: text(stderr) })
    }

    fn collect(mut self) -> Result<(ExitStatus, Vec<u8>, Vec<u8>, String)> {
        let shown = self.shown.take().unwrap_or_else(|| format!("{:?}", self.command));
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = self.command.spawn().with_context(|| format!("cannot run `{shown}`"))?;
        let (stdout, stderr) = (reader(child.stdout.take()), reader(child.stderr.take()));
        if let (Some(input), Some(mut pipe)) = (self.input.take(), child.stdin.take()) {
            // A command that doesn't want its input closes the pipe; its exit status tells what matters.
            std::thread::spawn(move || drop(pipe.write_all(&input)));
        }
        let status = wait(&mut child, self.timeout);
        if status.is_none() {
            kill_group(child.id());
            child.wait()?;
        }
        let (stdout, stderr) = (joined(stdout), joined(stderr));
        match status {
            Some(status) => Ok((status?, stdout, stderr, shown)),
            None => bail!(
                "`{shown}` took longer than {:?} and was killed\n--- stdout\n{}\n--- stderr\n{}",
                self.timeout,
                String::from_utf8_lossy(&stdout),
                String::from_utf8_lossy(&stderr)
            ),
        }
    }
}

/// Kills a process group that we made.
pub fn kill_group(leader: u32) {
    use nix::sys::signal::{Signal, killpg};
    // Already gone is as good.
    let _ = killpg(nix::unistd::Pid::from_raw(leader.cast_signed()), Signal::SIGKILL);
}

/// Calls `check` until it gives a value or the time is over.
pub fn poll<T>(timeout: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(value) = check() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

fn wait(child: &mut Child, timeout: Duration) -> Option<std::io::Result<ExitStatus>> {
    poll(timeout, || child.try_wait().transpose())
}

fn reader<R: Read + Send + 'static>(pipe: Option<R>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What could be read before an error is what there is to show.
            drop(pipe.read_to_end(&mut bytes));
        }
        bytes
    })
}

fn joined(thread: std::thread::JoinHandle<Vec<u8>>) -> Vec<u8> {
    thread.join().unwrap_or_default()
}
