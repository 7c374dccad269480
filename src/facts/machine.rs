//! The machine that facts are gathered from: this one, or a directory that looks like one.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::child;
use super::processes::RawProcess;
use crate::types::SubidRange;

/// No file that is read here comes near this size; a larger one is not what it claims to be.
const MAX_FILE_BYTES: u64 = 128 << 20;
/// As many links as Linux follows in one path (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// Where facts come from. Reads only.
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
    live: bool,
    helper: PathBuf,
    outputs: BTreeMap<String, String>,
    owners: BTreeMap<PathBuf, (u32, u32)>,
    default_owner: Option<(u32, u32)>,
    processes: Vec<RawProcess>,
    wanted: SubidRange,
}

/// With whose rights a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum As {
    /// As this process.
    Self_,
    /// As `nobody` when this process is root: for programs that are not trusted, or that would write as root.
    Nobody,
    /// The same, and the program is the one that answers the hidden subcommands.
    Helper,
}

impl Machine {
    /// This machine. Questions that this process must not ask itself (untrusted files, user namespaces) are asked by
    /// a child: this very program, started with a hidden subcommand (see [`child_main`](super::child_main)).
    pub fn live() -> Self {
        Self { live: true, helper: crate::system::own_program::path(), ..Self::at(Path::new("/")) }
    }

    /// The machine whose root directory is `root`: links are followed inside it, no command runs, and nothing is
    /// asked of the running kernel.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            live: false,
            helper: PathBuf::new(),
            outputs: BTreeMap::new(),
            owners: BTreeMap::new(),
            default_owner: None,
            processes: Vec::new(),
            wanted: SubidRange::NIX_DEFAULT,
        }
    }

    /// Makes `range` the one whose ids the name service is asked for, instead of Nix's default.
    #[must_use]
    pub fn with_wanted_ids(mut self, range: Option<SubidRange>) -> Self {
        self.wanted = range.unwrap_or(self.wanted);
        self
    }

    /// Makes `program` the one that answers the hidden subcommands.
    #[must_use]
    pub fn with_helper(mut self, program: &Path) -> Self {
        self.helper = program.to_owned();
        self
    }

    /// Records what `command` (program and arguments, separated by spaces) writes.
    #[must_use]
    pub fn with_output(mut self, command: &str, output: &str) -> Self {
        self.outputs.insert(command.to_owned(), output.to_owned());
        self
    }

    /// Makes `path` count as owned by `uid` and `gid`, so that a test need not be root.
    #[must_use]
    pub fn with_owner(mut self, path: &str, uid: u32, gid: u32) -> Self {
        self.owners.insert(PathBuf::from(path), (uid, gid));
        self
    }

    /// Makes every path without a [`Self::with_owner`] count as root's.
    #[must_use]
    pub fn owned_by_root(mut self) -> Self {
        self.default_owner = Some((0, 0));
        self
    }

    /// Records a running process.
    #[must_use]
    pub fn with_process(mut self, process: RawProcess) -> Self {
        self.processes.push(process);
        self
    }

    /// Whether this is the running machine.
    pub fn is_live(&self) -> bool {
        self.live
    }

    pub(crate) fn wanted_ids(&self) -> SubidRange {
        self.wanted
    }

    pub(crate) fn recorded_processes(&self) -> &[RawProcess] {
        &self.processes
    }

    pub(crate) fn helper(&self) -> &Path {
        &self.helper
    }

    /// Owner and group of what `metadata` tells of, which was asked of `path`.
    pub(crate) fn owner(&self, path: &Path, metadata: &Metadata) -> (u32, u32) {
        let recorded = self.owners.get(path).copied().or(self.default_owner);
        recorded.unwrap_or((metadata.uid(), metadata.gid()))
    }

    /// Standard output of a program that ended well; otherwise the reason, in words.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, who: As, program: &str, args: &[S]) -> Result<String, String> {
        self.run_for(who, program, args, &[0])
    }

    /// As [`Machine::run`]; these exit statuses are good ends.
    pub(crate) fn run_for<S: AsRef<OsStr>>(
        &self,
        who: As,
        program: &str,
        args: &[S],
        good: &[i32],
    ) -> Result<String, String> {
        if !self.live {
            let words = args.iter().map(|arg| arg.as_ref().to_string_lossy().into_owned());
            let line = std::iter::once(program.to_owned()).chain(words).collect::<Vec<_>>().join(" ");
            return self.outputs.get(&line).cloned().ok_or_else(|| "no command is run here".to_owned());
        }
        let mut command = match who {
            As::Self_ => crate::system::command::clean(program),
            As::Nobody => child::as_nobody(program),
            As::Helper => child::helper_as(Path::new(program), (child::NOBODY, child::NOBODY)),
        };
        let output = child::output(command.args(args), Duration::from_secs(20), 16 << 20)
            .map_err(|error| format!("cannot run {program}: {error}"))?;
        if !output.status.code().is_some_and(|code| good.contains(&code)) {
            return Err(format!("{program} ended with {}", output.status));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A file's text; bytes that are not UTF-8 are replaced. A file that is no regular file (a FIFO that somebody
    /// planted would block for ever) is an error.
    pub(crate) fn read(&self, path: &Path) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.read_bytes(path)?).into_owned())
    }

    /// As [`Machine::read`], byte for byte.
    pub(crate) fn read_bytes(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut file = self.open(path)?;
        // Room for all of it and for seeing its end; files below /proc say that they have no length.
        let length = file.metadata().map_or(0, |metadata| metadata.len().min(MAX_FILE_BYTES));
        let mut bytes = Vec::with_capacity(length as usize + 1);
        let read = Read::by_ref(&mut file).take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if read as u64 > MAX_FILE_BYTES {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 128 MiB"));
        }
        Ok(bytes)
    }

    /// As [`Machine::read`], a file of at most `limit` bytes whose owner is accepted. The owner is asked of the open file, so a link
    /// that changes meanwhile leads nowhere else.
    pub(crate) fn read_of(
        &self,
        path: &Path,
        limit: u64,
        accept: impl Fn(&Path, u32, u32) -> bool,
    ) -> io::Result<String> {
        let (file, real) = (self.open(path)?, self.real(path)?);
        let (uid, gid) = self.owner(&real, &file.metadata()?);
        if !accept(&real, uid, gid) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut text = String::new();
        let read = file.take(limit + 1).read_to_string(&mut text)?;
        if read as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(text)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.host(path)?)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(file)
    }

    /// Metadata of `path` itself, a link not followed.
    pub(crate) fn lstat(&self, path: &Path) -> io::Result<Metadata> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().unwrap_or(OsStr::new("."));
        fs::symlink_metadata(self.host(parent)?.join(name))
    }

    /// An extended attribute of `path` itself; `None` without one.
    pub(crate) fn attribute(&self, path: &Path, name: &str) -> Option<Vec<u8>> {
        let parent = self.host(path.parent()?).ok()?;
        xattr::get(parent.join(path.file_name()?), name).ok().flatten()
    }

    /// Metadata of what `path` leads to.
    pub(crate) fn stat(&self, path: &Path) -> io::Result<Metadata> {
        fs::metadata(self.host(path)?)
    }

    pub(crate) fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.stat(path.as_ref()).is_ok()
    }

    /// Names in a directory, sorted; an empty list when there is none.
    pub(crate) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.host(path).unwrap_or_default()) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Vec::new());
            }
            other => other?,
        };
        let mut names: Vec<_> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Where a link points, as it stands.
    pub(crate) fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::read_link(self.host(parent)?.join(path.file_name().ok_or(io::ErrorKind::InvalidInput)?))
    }

    /// The path on the running system that stands for `path` on this machine, every link followed.
    pub(crate) fn host(&self, path: &Path) -> io::Result<PathBuf> {
        if self.root == Path::new("/") {
            return Ok(path.to_owned());
        }
        let real = self.real(path)?;
        Ok(self.root.join(real.strip_prefix("/").unwrap_or(&real)))
    }

    /// `path` with every link followed inside the machine. The path must exist.
    pub(crate) fn real(&self, path: &Path) -> io::Result<PathBuf> {
        if self.root == Path::new("/") {
            return fs::canonicalize(path);
        }
        let mut todo = components(path);
        let mut done = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            let here = self.root.join(done.strip_prefix("/").unwrap_or(&done)).join(&part);
            if !fs::symlink_metadata(&here)?.is_symlink() {
                done.push(part);
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(io::Error::from_raw_os_error(nix::libc::ELOOP));
            }
            let target = fs::read_link(&here)?;
            if target.is_absolute() {
                done = PathBuf::from("/");
            }
            todo.extend(components(&target));
        }
        Ok(done)
    }
}

/// The parts of a path, the first one last.
pub fn components(path: &Path) -> Vec<std::ffi::OsString> {
    let part = |component| match component {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    let mut parts: Vec<_> = path.components().filter_map(part).collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_inside_the_root_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "inside").unwrap();
        symlink("/a/b", root.join("absolute")).unwrap();
        symlink("../../../a/b/file", root.join("a/upwards")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("/etc/hostname", root.join("outside")).unwrap();
        let machine = Machine::at(root);
        assert_eq!(machine.read(Path::new("/absolute/file")).unwrap(), "inside");
        assert_eq!(machine.real(Path::new("/a/upwards")).unwrap(), Path::new("/a/b/file"));
        assert_eq!(machine.read(Path::new("/outside")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(machine.read(Path::new("/loop")).is_err());
    }

    #[test]
    fn a_planted_fifo_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let error = Machine::at(dir.path()).read(Path::new("/fifo")).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }

    #[test]
    fn a_machine_in_a_directory_runs_nothing() {
        let machine = Machine::at(Path::new("/tmp")).with_output("echo recorded words", "yes");
        assert_eq!(machine.run(As::Self_, "echo", &["recorded", "words"]), Ok("yes".to_owned()));
        assert!(machine.run(As::Self_, "echo", &["live"]).is_err());
    }
}
