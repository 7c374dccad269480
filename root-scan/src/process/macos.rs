//! macOS: libproc, and `sysctl` for environments. It needs root, to see other users' processes.
//!
//! None of this could be run where it was written: it was compiled and linked for aarch64-apple-darwin. As with Nix's own daemon there, the environment of
//! a program that System Integrity Protection covers is hidden from everybody, and a directory that a single thread changed to is not looked at.
#![allow(unsafe_code)] // libproc has no safe wrapper

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;

use super::{ROUNDS, records};
use crate::doubt::Doubt;
use crate::helper::Helper;
use crate::roots::Roots;
use crate::store_path::find_all;

/// `sys/proc_info.h`: flavors that libc does not name.
const PROC_ALL_PIDS: u32 = 1;
const PROC_PIDREGIONPATHINFO: i32 = 8;
const PROC_PIDFDVNODEPATHINFO: i32 = 2;
/// More than any single record: two paths of 1024 bytes, and their `stat`s.
const RECORD: usize = 4096;
/// The most that is asked for at once: the list of a process with a million files.
const MOST: usize = 16 << 20;

/// All processes of the machine.
#[derive(Debug)]
pub struct Processes<'a> {
    /// What a place is shown below; there is no such directory.
    path: &'a Path,
}

impl<'a> Processes<'a> {
    /// Makes sure that all are shown, and all of each. `path` is what their places are called by (`/proc`).
    ///
    /// # Errors
    /// When something may be hidden.
    pub fn open(path: &'a Path) -> Result<Self, Doubt> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Doubt::Blind(
                "only root sees other users' processes; start us through launchd".to_owned(),
            ));
        }
        info(1, libc::PROC_PIDVNODEPATHINFO, 0, RECORD)
            .map_err(|errno| Doubt::unreadable(path.join("1/cwd"), errno))?;
        Ok(Self { path })
    }

    /// Adds the store paths that any process uses or names in its arguments or environment.
    ///
    /// # Errors
    /// Anything that may hide one.
    pub fn scan(&self, _: BorrowedFd<'_>, _: &mut Helper, roots: &mut Roots) -> Result<(), Doubt> {
        let mut seen = BTreeSet::new();
        for _ in 0..ROUNDS {
            let list = grown(|buffer| list(buffer)).map_err(|errno| Doubt::unreadable(self.path, errno))?;
            if !records::pids(&list).any(|pid| pid.cast_unsigned() == std::process::id()) {
                return Err(Doubt::Blind("the list of processes does not even have this one".to_owned()));
            }
            let new: Vec<_> = records::pids(&list).filter(|pid| seen.insert(*pid)).collect();
            for pid in &new {
                self.process(*pid, roots)?;
            }
            if new.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn process(&self, pid: i32, roots: &mut Roots) -> Result<(), Doubt> {
        let place = |what: &str| self.path.join(pid.to_string()).join(what);
        let mut add = |what: &str, found: nix::Result<Vec<u8>>| match found {
            Ok(text) => find_all(&text).try_for_each(|(base, _)| roots.add(base, || place(what))),
            Err(errno) => gone_or(pid, errno, || place(what)),
        };
        add("exe", executable(pid))?;
        add("cwd", info(pid, libc::PROC_PIDVNODEPATHINFO, 0, RECORD))?;
        add("environ", arguments(pid))?;
        let files = grown(|buffer| info_into(pid, libc::PROC_PIDLISTFDS, 0, buffer));
        match files {
            Ok(files) => {
                for file in records::files(&files) {
                    match file_info(pid, file) {
                        // Closed meanwhile.
                        Err(Errno::EBADF | Errno::ENOENT) => {}
                        found => add(&format!("fd/{file}"), found)?,
                    }
                }
            }
            Err(errno) => gone_or(pid, errno, || place("fd"))?,
        }
        let mut address = 0;
        loop {
            match info(pid, PROC_PIDREGIONPATHINFO, address, RECORD) {
                // Behind the last one.
                Err(Errno::EINVAL) => return Ok(()),
                Ok(region) => {
                    add("maps", Ok(region.clone()))?;
                    match records::behind(&region, address) {
                        Some(next) => address = next,
                        None => return Ok(()),
                    }
                }
                Err(errno) => return gone_or(pid, errno, || place("maps")),
            }
        }
    }
}

/// No doubt when the process has ended: then it holds nothing.
fn gone_or(pid: i32, errno: Errno, place: impl Fn() -> PathBuf) -> Result<(), Doubt> {
    let gone = errno == Errno::ESRCH
        || nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) == Err(Errno::ESRCH);
    if gone { Ok(()) } else { Err(Doubt::unreadable(place(), errno)) }
}

/// Asks with a buffer that grows until the answer leaves room in it, so that nothing was cut off.
fn grown(mut ask: impl FnMut(&mut [u8]) -> nix::Result<usize>) -> nix::Result<Vec<u8>> {
    let mut size = 16 << 10;
    loop {
        let mut buffer = vec![0; size];
        let length = ask(&mut buffer)?;
        if length + RECORD < size {
            buffer.truncate(length);
            return Ok(buffer);
        }
        size *= 2;
        if size > MOST {
            return Err(Errno::EOVERFLOW);
        }
    }
}

fn list(buffer: &mut [u8]) -> nix::Result<usize> {
    let size = length(buffer);
    // SAFETY: the buffer is writable, and as long as is said.
    counted(|| unsafe { libc::proc_listpids(PROC_ALL_PIDS, 0, buffer.as_mut_ptr().cast(), size) })
}

fn info_into(pid: i32, flavor: i32, argument: u64, buffer: &mut [u8]) -> nix::Result<usize> {
    let size = length(buffer);
    // SAFETY: the buffer is writable, and as long as is said.
    counted(|| unsafe { libc::proc_pidinfo(pid, flavor, argument, buffer.as_mut_ptr().cast(), size) })
}

fn info(pid: i32, flavor: i32, argument: u64, size: usize) -> nix::Result<Vec<u8>> {
    let mut buffer = vec![0; size];
    let length = info_into(pid, flavor, argument, &mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

fn file_info(pid: i32, file: i32) -> nix::Result<Vec<u8>> {
    let mut buffer = vec![0; RECORD];
    let size = length(&buffer);
    // SAFETY: the buffer is writable, and as long as is said.
    let length = counted(|| unsafe {
        libc::proc_pidfdinfo(pid, file, PROC_PIDFDVNODEPATHINFO, buffer.as_mut_ptr().cast(), size)
    })?;
    buffer.truncate(length);
    Ok(buffer)
}

/// The program's path, between two NULs as in the other records.
fn executable(pid: i32) -> nix::Result<Vec<u8>> {
    let mut buffer = vec![0; RECORD];
    // SAFETY: the buffer is writable, and as long as is said.
    let length = counted(|| unsafe { libc::proc_pidpath(pid, buffer.as_mut_ptr().cast(), RECORD as u32) });
    match length {
        Ok(length) => {
            buffer.truncate(length + 1);
            Ok(buffer)
        }
        // The program was removed.
        Err(Errno::ENOENT) => Ok(Vec::new()),
        Err(errno) => Err(errno),
    }
}

/// `KERN_PROCARGS2`: the program, its arguments, its environment.
fn arguments(pid: i32) -> nix::Result<Vec<u8>> {
    let asked = grown(|buffer| {
        let mut name = [libc::CTL_KERN, libc::KERN_PROCARGS2, pid];
        let mut size = buffer.len();
        // SAFETY: name and buffer are as long as is said; nothing is set.
        let done = unsafe {
            libc::sysctl(
                name.as_mut_ptr(),
                3,
                buffer.as_mut_ptr().cast(),
                &raw mut size,
                std::ptr::null_mut(),
                0,
            )
        };
        Errno::result(done).map(|_| size)
    });
    match asked {
        // One that is starting or ending has none yet, or no longer; and the kernel's own never have.
        Err(Errno::EINVAL) => Ok(Vec::new()),
        asked => asked,
    }
}

/// Runs a call of libproc, which gives 0 or less for an error, and the length of its answer otherwise.
fn counted(call: impl FnOnce() -> i32) -> nix::Result<usize> {
    Errno::clear();
    match call() {
        length @ 1.. => Ok(length as usize),
        _ if Errno::last_raw() == 0 => Ok(0),
        _ => Err(Errno::last()),
    }
}

fn length(buffer: &[u8]) -> i32 {
    i32::try_from(buffer.len()).unwrap_or(i32::MAX)
}
