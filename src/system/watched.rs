//! Children that are watched: for how long they run and for how much they say.
//!
//! A child that runs with another user's rights, or reads what another user wrote, may be made to run for ever and to speak without end.
//! Nothing here waits for the end of a pipe without a limit: a process that left its group may hold it.

use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::text::printable;
use super::{checkpoint, kernel};

/// How much of standard error is kept, in bytes; the rest is read and forgotten.
const COMPLAINT_LIMIT: usize = 1 << 20;
/// How long is waited for the rest of what a child said, when it has ended and something that it started still holds the pipe.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// The longest time between two looks at whether a child goes on.
const LOOK: Duration = Duration::from_millis(100);

/// What a child may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits<'a> {
    /// How long it may run.
    pub time: Duration,
    /// How many bytes it may write to standard output.
    pub output: usize,
    /// Whether what it leaves running is ended with it.
    pub leaves_nothing: bool,
    /// Set when it is to be ended at once.
    pub cancelled: Option<&'a AtomicBool>,
}

/// What a child gets to read. One that we leave behind when we are killed meets its end.
#[derive(Debug)]
pub enum Input {
    /// These bytes; where there are none, what the command says.
    Bytes(Vec<u8>),
    /// What a file of ours holds, from where it is read now.
    File(File),
}

impl From<Vec<u8>> for Input {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<File> for Input {
    fn from(file: File) -> Self {
        Self::File(file)
    }
}

/// Why a child that does something as another user gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// It could not be started, or was ended.
    #[error(transparent)]
    Ended(#[from] io::Error),
    /// It said no, in words that are made printable.
    #[error("{0}")]
    Refused(String),
}

/// A child that runs.
#[derive(Debug)]
pub struct Watched {
    child: Child,
    stdout: Arc<Heard>,
    stderr: Arc<Heard>,
    /// Is disconnected when both pipes are at their ends.
    all_said: Receiver<()>,
    /// How much of its input it got.
    fed: Receiver<Fed>,
}

/// How much of its input a child got.
#[derive(Debug)]
pub enum Fed {
    /// All of it.
    Whole,
    /// What it wanted of it.
    Partly,
    /// What could be read: this is why there was no more.
    Unreadable(io::Error),
}

/// What a pipe brought so far.
#[derive(Debug, Default)]
struct Heard {
    bytes: Mutex<Vec<u8>>,
    /// There was more.
    overflowed: AtomicBool,
}

impl Input {
    fn feed(self, mut pipe: impl Write) -> Fed {
        let fed = match self {
            Self::Bytes(bytes) => io::copy(&mut Cursor::new(bytes), &mut pipe),
            Self::File(mut file) => io::copy(&mut file, &mut pipe),
        };
        match fed {
            Ok(_) => Fed::Whole,
            // A pipe fails for no other reason.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Fed::Partly,
            Err(error) => Fed::Unreadable(error),
        }
    }
}

impl Limits<'_> {
    /// For a child that reads what another user wrote, and leaves nothing running. Its answer is 16 MiB long at most.
    pub fn of_time(time: Duration) -> Self {
        Self { time, output: 16 << 20, leaves_nothing: true, cancelled: None }
    }
}

impl<'a> Limits<'a> {
    /// The same, until this is set.
    #[must_use]
    pub fn until(self, cancelled: &'a AtomicBool) -> Self {
        Self { cancelled: Some(cancelled), ..self }
    }
}

/// Runs a child of [`command::clean`](super::command::clean)'s kind with `input`, and returns what it wrote to standard output.
///
/// # Errors
/// When it cannot be started, oversteps a limit and is ended, does not read its input, or exits with anything but 0.
pub fn answer(
    command: &mut Command,
    input: impl Into<Input>,
    limits: Limits<'_>,
) -> Result<Vec<u8>, ChildError> {
    let child = Watched::start(command.stderr(Stdio::piped()), input, limits.output)?;
    checkpoint::inside_command(child.id());
    let (output, fed) = child.end(limits)?;
    checkpoint::inside("command-ended");
    match fed {
        // Whatever it says of a part of its input, this is why.
        Fed::Unreadable(error) => Err(error.into()),
        _ if !output.status.success() => Err(refused(output.status, &output.stderr)),
        Fed::Partly => {
            Err(io::Error::new(io::ErrorKind::BrokenPipe, "it did not read all that it was given").into())
        }
        Fed::Whole => Ok(output.stdout),
    }
}

/// Runs a command that is to come to its end also when this process is killed, however long that takes: it complains to a file, `words`, and
/// not to a pipe that ends with us. What it leaves running is not waited for.
///
/// # Errors
/// When it or the file cannot be made, or exits with anything but 0.
pub fn to_the_end(command: &mut Command, words: &Path) -> Result<(), ChildError> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(words)?;
    let mut child = command.stdout(Stdio::null()).stderr(file).spawn()?;
    checkpoint::inside_command(child.id());
    let status = child.wait()?;
    checkpoint::inside("command-ended");
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    File::open(words)?.take(COMPLAINT_LIMIT as u64).read_to_end(&mut said)?;
    Err(refused(status, &said))
}

/// What a child said when it failed; how it ended, when it said nothing.
fn refused(status: ExitStatus, said: &[u8]) -> ChildError {
    let said = printable(String::from_utf8_lossy(said).trim());
    ChildError::Refused(if said.is_empty() { status.to_string() } else { said })
}

impl Watched {
    /// Starts a command, which has to lead a process group as [`command::clean`](super::command::clean) makes it do, and listens to the
    /// first `limit` bytes of its output. Its standard error is listened to where it is piped.
    ///
    /// # Errors
    /// The system's reason.
    pub fn start(command: &mut Command, input: impl Into<Input>, limit: usize) -> io::Result<Self> {
        let input = input.into();
        if !matches!(&input, Input::Bytes(bytes) if bytes.is_empty()) {
            command.stdin(Stdio::piped());
        }
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let (done, all_said) = channel();
        let (tell, fed) = channel();
        let stdin = child.stdin.take();
        // On a thread that nobody waits for: a child may never read.
        thread::spawn(move || tell.send(stdin.map_or(Fed::Whole, |pipe| input.feed(pipe))));
        let stdout = Heard::listen(child.stdout.take(), limit, done.clone());
        let stderr = Heard::listen(child.stderr.take(), COMPLAINT_LIMIT, done);
        Ok(Self { child, stdout, stderr, all_said, fed })
    }

    /// Its process id, which is that of its process group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, or ends it; what it said, and how much of its input it got.
    ///
    /// # Errors
    /// When it oversteps a limit ([`io::ErrorKind::TimedOut`], [`io::ErrorKind::FileTooLarge`]) or the run is to stop.
    pub fn end(mut self, limits: Limits<'_>) -> io::Result<(Output, Fed)> {
        let ended = self.wait(&limits);
        if ended.is_err() || limits.leaves_nothing {
            // The group's id is the child's, which is not reaped yet, so it cannot be another's.
            let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        }
        if ended.is_err() {
            let _ = self.child.kill();
        }
        let status = self.child.wait()?;
        ended?;
        // Nothing is sent: both readers drop their end when they are done.
        let _ = self.all_said.recv_timeout(LAST_WORDS);
        self.stdout.check()?;
        let fed = self.fed.recv_timeout(LAST_WORDS).unwrap_or(Fed::Partly);
        Ok((Output { status, stdout: self.stdout.take(), stderr: self.stderr.take() }, fed))
    }

    /// How it ended, when it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// What it complained about before its end, printable.
    pub fn complaint(&self) -> String {
        let _ = self.all_said.recv_timeout(LAST_WORDS);
        printable(String::from_utf8_lossy(&self.stderr.take()).trim())
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(mut self) {
        // Its id is its own until it is reaped here or was by `ended`; one that has ended is what is wanted.
        if self.ended().is_none() {
            let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
            let _ = self.child.wait();
        }
    }

    /// Returns when the child has ended, which stays to be reaped.
    fn wait(&self, limits: &Limits<'_>) -> io::Result<()> {
        let start = Instant::now();
        let ended = Ended::of(&self.child)?;
        let id = rustix::process::Pid::from_child(&self.child);
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(id), look)?.is_none() {
            let left = limits.time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no end within the time given"));
            }
            if limits.cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "stopped by a signal"));
            }
            self.stdout.check()?;
            ended.wait(left.min(LOOK));
        }
        Ok(())
    }
}

impl Heard {
    /// Reads a pipe to its end on a thread of its own, and keeps the first `limit` bytes; `done` is dropped then.
    fn listen(pipe: Option<impl Read + Send + 'static>, limit: usize, done: Sender<()>) -> Arc<Self> {
        let heard = Arc::new(Self::default());
        let listener = Arc::clone(&heard);
        thread::spawn(move || {
            let _done = done;
            let Some(mut pipe) = pipe else { return };
            let mut buffer = [0; 8192];
            // What came before an error is what there is.
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                let mut bytes = listener.bytes.lock().unwrap_or_else(PoisonError::into_inner);
                let room = limit.saturating_sub(bytes.len());
                bytes.extend_from_slice(&buffer[..count.min(room)]);
                if count > room {
                    listener.overflowed.store(true, Ordering::Relaxed);
                }
            }
        });
        heard
    }

    fn check(&self) -> io::Result<()> {
        match self.overflowed.load(Ordering::Relaxed) {
            true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "too much output")),
            false => Ok(()),
        }
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What tells that a child has ended.
#[cfg(target_os = "linux")]
struct Ended(std::os::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl Ended {
    fn of(child: &Child) -> io::Result<Self> {
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
    fn of(_: &Child) -> io::Result<Self> {
        Ok(Self)
    }

    fn wait(&self, left: Duration) {
        thread::sleep(left.min(Duration::from_millis(5)));
    }
}

/// What a child that reads what it cannot trust takes from itself: new privileges, cores, more than 8 GiB of memory, this much time of a
/// processor and, unless it `writes`, files.
///
/// # Errors
/// The system's reason.
pub fn confine(time: Duration, writes: bool) -> io::Result<()> {
    let set = |resource, value| setrlimit(resource, value, value);
    kernel::set_no_new_privileges()?;
    set(Resource::RLIMIT_CORE, 0)?;
    set(Resource::RLIMIT_CPU, time.as_secs())?;
    if !writes {
        set(Resource::RLIMIT_FSIZE, 0)?;
    }
    Ok(kernel::limit_memory(8 << 30)?)
}

#[cfg(test)]
mod tests;
