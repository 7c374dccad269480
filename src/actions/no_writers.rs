//! Nobody can still write to what has changed hands.
//!
//! A file that was opened for writing can be written to whoever owns it afterwards. When a store was a person's, any of that
//! person's processes may hold such a file. Files are told by their owner, not by their path, which means nothing for a
//! process in a mount namespace of its own: the new owner is a user of its own, who owns nothing else. In a container the same number is
//! somebody else, so the machine's own containers are passed over.
//!
//! Who opened a file before it changed hands, and after the last look before that, has one of root's by now: such files are told by their
//! path, below `/nix`, where nobody else has one of root's open for writing.
//!
//! What cannot be seen here: a descriptor that is on its way in a socket's queue (`SCM_RIGHTS`, unix(7)); and a file of root's that somebody
//! has under another name, in a mount namespace of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host, show, uid_of};
use crate::facts::{RawProcess, running_processes};
use crate::system::kernel;
use crate::system::pause::Pause;

/// How long somebody who has a file open may take to close it.
const GRACE: Duration = Duration::from_secs(5);
/// The longest pause between two looks.
const POLL: Duration = Duration::from_millis(200);
/// The bits of a descriptor's flags that say how it may be used (`O_ACCMODE`); 0 is reading.
const ACCESS_MODE: u32 = 0o3;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoWriters {
    /// The new owner, by name.
    pub user: String,
}

impl Act for NoWriters {
    type Before = ();

    fn changes(&self) -> String {
        format!("looks for processes that have a file of {} open for writing; changes nothing", self.user)
    }

    fn undone_by(&self) -> String {
        "nothing to undo: nothing was changed".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, host: &Host<'_>, (): &()) -> Result<()> {
        wait_for_none(host, uid_of(&self.user)?, &self.user)
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        Ok(())
    }
}

/// Returns when no process has a file of `owner`, who is called `name`, open for writing, and none but root's has one of root's below `/nix`.
///
/// # Errors
/// When one still has after some seconds, and when the run is to stop.
pub fn wait_for_none(host: &Host<'_>, owner: u32, name: &str) -> Result<()> {
    let start = Instant::now();
    let mut pause = Pause::up_to(POLL);
    loop {
        host.check_cancelled()?;
        let Some((process, file)) = first_writer(owner) else { return Ok(()) };
        if start.elapsed() >= GRACE {
            bail!(
                "process {} of uid {} ({}) can still write to {}, which is {}'s or was: end it, and try again (nix-unroot rollback, when something is undone)",
                process.pid,
                process.uid,
                process.shown(),
                show(&file),
                name
            );
        }
        pause.wait();
    }
}

/// A process that can write to a file of `owner`, and what it calls the file.
fn first_writer(owner: u32) -> Option<(RawProcess, PathBuf)> {
    running_processes().into_iter().filter(RawProcess::has_uid_of_this_machine).find_map(|process| {
        let found = writes(process.pid, &|file| {
            let owned_by = kernel::owner_of_file(file);
            owned_by == Some(owner)
                || (owned_by == Some(0)
                    && name_of(file).starts_with("/nix")
                    && process.has_uid(|uid| uid != 0))
        })?;
        Some((process, found))
    })
}

/// Threads share their memory, but may have descriptors of their own; and the first one may have ended.
fn writes(pid: i32, counts: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let tasks: Vec<i32> = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect();
    let own = |task: &&i32| **task == pid || !kernel::share_descriptors(pid, **task);
    let open = || tasks.iter().filter(own).find_map(|task| open_file(*task, counts));
    open().or_else(|| tasks.iter().find_map(|task| mapped_file(*task, counts)))
}

/// By its descriptors. A process that ended meanwhile has none.
fn open_file(pid: i32, counts: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    descriptors.flatten().map(|descriptor| descriptor.path()).find_map(|link| {
        let number = link.file_name()?.to_str()?;
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
        (may_write(&info) && counts(&link)).then(|| name_of(&link))
    })
}

/// By its memory: a file that is mapped shared, and may be written to or be made so (`mw`, `Documentation/filesystems/proc.rst`).
fn mapped_file(pid: i32, counts: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    if !maps.lines().any(is_shared) {
        return None;
    }
    let areas = fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    shared_writable(&areas).into_iter().find_map(|range| {
        let link = PathBuf::from(format!("/proc/{pid}/map_files/{range}"));
        counts(&link).then(|| name_of(&link))
    })
}

fn may_write(info: &str) -> bool {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags
        .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
        .is_none_or(|flags| flags & ACCESS_MODE != 0)
}

/// Whether a line of `maps` or `smaps` begins an area that is shared.
fn is_shared(line: &str) -> bool {
    line.split_whitespace().nth(1).is_some_and(|rights| rights.len() == 4 && rights.ends_with('s'))
}

/// The address ranges of shared areas that may be written to.
fn shared_writable(areas: &str) -> Vec<&str> {
    let mut area = None;
    let mut found = Vec::new();
    for line in areas.lines() {
        match line.strip_prefix("VmFlags:") {
            Some(flags) if flags.split_whitespace().any(|flag| flag == "mw") => found.extend(area.take()),
            Some(_) => area = None,
            None if is_shared(line) => area = line.split_whitespace().next(),
            None => {}
        }
    }
    found
}

fn name_of(link: &Path) -> PathBuf {
    fs::read_link(link).unwrap_or_else(|_| link.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::chown;

    use super::*;

    const OWNER: u32 = 3_999_999_998;

    fn is_owners(file: &Path) -> bool {
        kernel::owner_of_file(file) == Some(OWNER)
    }

    /// Whether this process, which `first_writer` leaves out, would be found.
    fn is_found() -> bool {
        writes(std::process::id().cast_signed(), &is_owners).is_some()
    }

    /// What `look` sees while a Python script with these arguments goes on after it said `open`; and its process id.
    fn beside<T>(script: &[&str], look: impl FnOnce(i32) -> T) -> (i32, T) {
        let mut python = std::process::Command::new("python3")
            .arg("-c")
            .args(script)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        std::io::Read::read_exact(python.stdout.as_mut().unwrap(), &mut said).unwrap();
        let pid = python.id().cast_signed();
        let seen = look(pid);
        python.kill().unwrap();
        python.wait().unwrap();
        (pid, seen)
    }

    /// A thread that goes on when the first one has ended, and one with descriptors of its own.
    #[test]
    fn threads_are_found_by_what_they_have_alone() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "").unwrap();
        chown(&path, Some(OWNER), None).unwrap();
        // 60 is exit(2) of the calling thread, 272 is unshare(2), 0x400 CLONE_FILES.
        let alone = "import ctypes, threading, time, sys
call = ctypes.CDLL(None).syscall
def work():
    if sys.argv[2] == 'unshare': assert call(272, 0x400) == 0
    file = open(sys.argv[1], 'a'); print('open', flush=True); time.sleep(60)
threading.Thread(target=work).start()
if sys.argv[2] == 'exit': call(60, 0)
time.sleep(60)";
        for how in ["exit", "unshare"] {
            let (pid, found) = beside(&[alone, path.to_str().unwrap(), how], |_| first_writer(OWNER));
            let (process, file) = found.unwrap_or_else(|| panic!("{how}: not found"));
            assert_eq!((process.pid, file), (pid, path.clone()), "{how}");
        }
        assert!(first_writer(OWNER).is_none());
    }

    #[test]
    fn open_and_mapped_files_are_found_by_their_owner() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, [0; 4096]).unwrap();
        chown(&path, Some(OWNER), None).unwrap();
        assert!(!is_found());
        let reader = File::open(&path).unwrap();
        assert!(!is_found(), "a reader does no harm");
        let writer = File::options().append(true).open(&path).unwrap();
        assert!(is_found());
        drop((reader, writer));
        assert!(!is_found());
    }

    /// Whose descriptor is closed by now.
    #[test]
    fn a_mapped_file_is_found_by_its_owner() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, [0; 4096]).unwrap();
        chown(&path, Some(OWNER), None).unwrap();
        let map = "import ctypes, os, sys, time
c = ctypes.CDLL(None); c.mmap.restype = ctypes.c_void_p
fd = os.open(sys.argv[1], os.O_RDWR)
at = c.mmap(None, ctypes.c_size_t(4096), int(sys.argv[2]), int(sys.argv[3]), fd, ctypes.c_long(0))
assert at not in (None, 2**64 - 1)
os.close(fd); print('open', flush=True); time.sleep(60)";
        // Rights: 1 reading, 2 writing; 1 is shared, 2 private (mmap(2)).
        for (rights, kind, is_writer) in [("3", "1", true), ("1", "1", true), ("3", "2", false)] {
            let script = [map, path.to_str().unwrap(), rights, kind];
            let (_, found) = beside(&script, |pid| writes(pid, &is_owners));
            assert_eq!(found.is_some(), is_writer, "rights {rights}, kind {kind}");
        }
    }

    #[test]
    fn flags_and_areas_are_read() {
        for (info, writes) in [
            ("pos:\t0\nflags:\t0100000\n", false),
            ("pos:\t0\nflags:\t0100001\n", true),
            ("flags:\t02100002\n", true),
            ("flags:\t010000000\n", false),
            ("nothing of the kind", true),
        ] {
            assert_eq!(may_write(info), writes, "{info}");
        }
        let area = |range: &str, rights: &str, flags: &str| {
            format!("{range} {rights} 00000000 08:01 7 /nix/x y\nSize: 4 kB\nVmFlags: {flags} \n")
        };
        let areas = area("1-2", "r--p", "rd mr mw me")
            + &area("2-3", "r--s", "rd sh mr me ms")
            + &area("3-4", "r--s", "rd sh mr mw me ms")
            + &area("4-5", "rw-s", "rd wr sh mr mw me ms");
        assert_eq!(shared_writable(&areas), ["3-4", "4-5"]);
        assert!(areas.lines().any(is_shared));
    }
}
