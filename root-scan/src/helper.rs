//! Looks in a child process, which can be killed when a file system does not answer.
//!
//! The parent writes a few paths, and the child answers them together. When it does not, it is killed, and from then on paths are
//! asked one by one: the one without an answer hangs, and what lies on the same mount is not tried again in this scan. A child that not
//! even a kill ends (a FUSE server that took the request and sleeps) is left behind, and a new one is started.

use std::collections::VecDeque;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollTimeout, poll};

use crate::doubt::Doubt;
use crate::look::{self, Direct, Eyes, Kind, Outcome};
use crate::{activation, sys};

/// The argument that makes the program a helper.
pub const ARGUMENT: &str = "--look";
/// How long one look-up may take. Long for a machine, short for somebody who waits for a collection.
pub const LIMIT: Duration = Duration::from_secs(4);

/// Helpers in one scan. With the limit above this leaves most of the unit's ten minutes.
const MAX_STARTS: usize = 16;
/// For all look-ups of a scan together: a server that answers each in nearly that time must not outlast the unit's ten minutes, which tell no reason.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Fits into any pipe, so writing does not wait for a child that hangs.
const BATCH: usize = 4096;
/// Answers that are written and read at once.
const PIECE: usize = 16 * 1024;
/// No outcome is longer: a link text and four fields of a line of mountinfo.
const MAX_FRAME: usize = 64 * 1024;

/// The parent's side.
#[derive(Debug)]
pub struct Helper {
    proc: PathBuf,
    limit: Duration,
    running: Option<Running>,
    starts: usize,
    hung: Vec<PathBuf>,
    one_by_one: bool,
    /// For answers, in all.
    waited: Duration,
}

#[derive(Debug)]
struct Running {
    child: Child,
    requests: ChildStdin,
    answers: ChildStdout,
    /// Read, and not understood yet.
    unread: VecDeque<u8>,
}

impl Helper {
    /// A helper that is started when there is something to look at.
    pub fn new(proc: &Path, limit: Duration) -> Self {
        let (hung, waited) = (Vec::new(), Duration::ZERO);
        Self { proc: proc.to_owned(), limit, running: None, starts: 0, hung, one_by_one: false, waited }
    }

    fn batch(&mut self, kind: Kind, paths: &[PathBuf]) -> Result<Vec<Outcome>, Doubt> {
        let mut outcomes = Vec::with_capacity(paths.len());
        let limit = self.limit;
        let running = self.start()?;
        let mut text = Vec::new();
        for path in paths {
            text.extend_from_slice(&request(kind, path));
        }
        let mut failed = running.requests.write_all(&text).err();
        while failed.is_none() && outcomes.len() < paths.len() {
            match running.answer(limit) {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => failed = Some(error),
            }
        }
        let Some(error) = failed else { return Ok(outcomes) };
        self.stop();
        // A helper that died for another reason is started again; the number of starts is limited.
        if error.kind() == io::ErrorKind::TimedOut && paths.len() > 1 {
            self.one_by_one = true;
        } else if error.kind() == io::ErrorKind::TimedOut {
            let path = &paths[outcomes.len()];
            // What a process holds tells nothing about the place of anything else.
            if kind == Kind::Lies {
                let area = self.area(path)?;
                activation::log(format_args!("no answer from {}", crate::doubt::printable(&area)));
                self.hung.push(area);
            }
            outcomes.push(Outcome::Unseen(Errno::ETIMEDOUT));
        }
        Ok(outcomes)
    }

    /// What is given up together with `path`: its mount, but never the root file system.
    fn area(&self, path: &Path) -> Result<PathBuf, Doubt> {
        let point = look::mount_of(&self.proc, path)?;
        Ok(if point == Path::new("/") { path.parent().unwrap_or(path).to_owned() } else { point })
    }

    fn start(&mut self) -> Result<&mut Running, Doubt> {
        let running = match self.running.take() {
            Some(running) => running,
            None => {
                self.starts += 1;
                if self.starts > MAX_STARTS {
                    let at = self.hung.last().cloned().unwrap_or_default();
                    return Err(Doubt::Limit { what: "look-ups without an answer", limit: MAX_STARTS, at });
                }
                Running::start(&self.proc).map_err(|error| {
                    Doubt::Blind(format!("cannot start a helper to look at files: {error}"))
                })?
            }
        };
        Ok(self.running.insert(running))
    }

    fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.child.kill();
            // Not wait(): it may sleep in the kernel for as long as the file system does.
            for _ in 0..20 {
                if !matches!(running.child.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Eyes for Helper {
    fn look(&mut self, kind: Kind, paths: &[PathBuf]) -> Result<Vec<Outcome>, Doubt> {
        let mut outcomes = Vec::with_capacity(paths.len());
        while let Some(first) = paths.get(outcomes.len()) {
            let is_hung =
                |path: &Path| kind == Kind::Lies && self.hung.iter().any(|area| path.starts_with(area));
            if is_hung(first) {
                outcomes.push(Outcome::Unseen(Errno::ETIMEDOUT));
                continue;
            }
            let mut bytes = 0;
            let rest = &paths[outcomes.len()..];
            let fits = rest.iter().take_while(|path| {
                bytes += 5 + path.as_os_str().len();
                bytes <= BATCH && !is_hung(path)
            });
            let count = if self.one_by_one { 1 } else { fits.count().max(1) };
            let start = Instant::now();
            outcomes.extend(self.batch(kind, &rest[..count])?);
            self.waited += start.elapsed();
            if self.waited > PATIENCE {
                return Err(Doubt::unreadable(&rest[0], Errno::ETIMEDOUT));
            }
        }
        Ok(outcomes)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Running {
    fn start(proc: &Path) -> io::Result<Self> {
        let mut child = Command::new(own_program()?)
            .arg(ARGUMENT)
            .arg(proc)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(requests), Some(answers)) => Ok(Self { child, requests, answers, unread: VecDeque::new() }),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn answer(&mut self, limit: Duration) -> io::Result<Outcome> {
        let end = Instant::now() + limit;
        self.wait_for(4, end)?;
        let mut length = [0; 4];
        self.unread.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.wait_for(length, end)?;
        let text: Vec<u8> = self.unread.drain(..length).collect();
        look::decode(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Reads until so many bytes are there.
    fn wait_for(&mut self, bytes: usize, end: Instant) -> io::Result<()> {
        while self.unread.len() < bytes {
            let mut buffer = [0; PIECE];
            let left = end.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.answers.as_fd(), nix::poll::PollFlags::POLLIN)], left) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => match self.answers.read(&mut buffer)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => self.unread.extend(&buffer[..count]),
                },
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// This very file, also when it was replaced.
#[cfg(target_os = "linux")]
fn own_program() -> io::Result<PathBuf> {
    Ok("/proc/self/exe".into())
}

#[cfg(not(target_os = "linux"))]
fn own_program() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// The child's side: answers until its input ends.
pub fn run(proc: &Path) -> ExitCode {
    // A service that is asked to stop finishes its answer, and needs us for it.
    let answered = activation::wait_with_signals()
        .and_then(|()| sys::root_of_init(proc).map_err(io::Error::from))
        .and_then(|root| answer(&mut Direct::new(root.as_fd(), proc)));
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer(eyes: &mut Direct<'_>) -> io::Result<()> {
    use std::os::unix::ffi::OsStringExt;
    let mut requests = BufReader::new(io::stdin().lock());
    let mut answers = BufWriter::with_capacity(PIECE, io::stdout().lock());
    let mut length = [0; 4];
    loop {
        match requests.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let mut path = vec![0; usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX)];
        requests.read_exact(&mut path)?;
        let kind = path.pop().and_then(Kind::from_letter).ok_or(io::ErrorKind::InvalidData)?;
        let outcome = eyes.one(kind, Path::new(&std::ffi::OsString::from_vec(path)));
        answers.write_all(&frame(&look::encode(&outcome)))?;
        if requests.buffer().is_empty() {
            answers.flush()?;
        }
    }
}

/// A path, and behind it the letter of what is asked.
fn request(kind: Kind, path: &Path) -> Vec<u8> {
    let mut text = path.as_os_str().as_encoded_bytes().to_vec();
    text.push(kind.letter());
    frame(&text)
}

fn frame(text: &[u8]) -> Vec<u8> {
    // Paths and outcomes are a few pages at most.
    let mut frame = u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    frame.extend_from_slice(text);
    frame
}
