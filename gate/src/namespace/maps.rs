//! The one privileged act: writing the id maps of the namespace.
//!
//! A process that has entered a new user namespace has no capabilities outside any more, so another one has to write its
//! maps (user_namespaces(7)). That one is forked before anything else happens, holds `CAP_SETUID` and `CAP_SETGID`, reads
//! one byte, writes two files whose contents were settled before, and ends. No input reaches it: neither the connection,
//! nor a configuration file, nor a name service.

use crate::builds::{Ids, Subids};
use crate::{Failure, Result, caps, while_doing};
use nix::fcntl::{OFlag, open, openat};
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, getegid, geteuid};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// The process that will write the maps of the process that forked it. It ends when that process does.
#[derive(Debug)]
pub struct MapWriter {
    process: Pid,
    stream: UnixStream,
}

/// Parent to child: "I am in my new namespace". Child to parent: "the maps are written".
const DONE: u8 = b'.';

impl MapWriter {
    /// Forks the writer, for the maps `0 -> the caller's own id` and the subordinate ids to themselves.
    ///
    /// # Errors
    /// When there can be no further process.
    pub fn fork(subids: Subids) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().map_err(while_doing("make a socket pair"))?;
        // This very process, also when its number is used again. Opened by itself, since with ProtectProc= in the unit only whoever
        // has all of a process's capabilities may look it up; in the new namespace's files the writer may write as its owner.
        let process = open_own_process()?;
        let uid_map = map(geteuid().as_raw(), subids);
        let gid_map = map(getegid().as_raw(), subids);
        // SAFETY: this process has a single thread, so the child may do whatever the parent may.
        #[allow(unsafe_code)]
        let forked = unsafe { nix::unistd::fork() };
        match forked.map_err(while_doing("fork"))? {
            ForkResult::Parent { child } => Ok(Self { process: child, stream: ours }),
            ForkResult::Child => {
                drop(ours);
                let written = serve(&process, theirs, &uid_map, &gid_map);
                if let Err(failure) = &written {
                    crate::log::line(failure);
                }
                std::process::exit(i32::from(written.is_err()));
            }
        }
    }

    /// Has the maps written, and waits until the writer is gone. The caller is in its new namespace.
    ///
    /// # Errors
    /// When the kernel refused the maps; the writer has logged why.
    pub fn write(mut self) -> Result<()> {
        let mut answer = [0];
        let written = self.stream.write_all(&[DONE]).and_then(|()| self.stream.read_exact(&mut answer));
        waitpid(self.process, None).map_err(while_doing("wait for the writer of the id maps"))?;
        match written {
            Ok(()) if answer == [DONE] => Ok(()),
            _ => Err(Failure::new("the id maps of the namespace were not written")),
        }
    }
}

fn map(own: u32, Subids(Ids { start, count }): Subids) -> String {
    format!("0 {own} 1\n{start} {start} {count}\n")
}

/// The life of the writer.
fn serve(process: &OwnedFd, mut stream: UnixStream, uid_map: &str, gid_map: &str) -> Result<()> {
    caps::drop_all_but(caps::SETUID | caps::SETGID)?;
    // The connection is none of its business; and were it kept open, the client would not see the gate die.
    // The same user's other processes may not look into it.
    nix::unistd::close(0)
        .and_then(|()| nix::unistd::close(1))
        .map_err(while_doing("close the connection"))?;
    prctl::set_dumpable(false).map_err(while_doing("protect the writer of the id maps"))?;
    let mut ready = [0];
    if stream.read_exact(&mut ready).is_err() {
        // The peer was refused: there is nothing to write.
        return Ok(());
    }
    caps::raise()?;
    write_map(process, "uid_map", uid_map)?;
    write_map(process, "gid_map", gid_map)?;
    caps::drop_all_but(0)?;
    stream.write_all(&[DONE]).map_err(while_doing("report the id maps"))
}

fn open_own_process() -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open("/proc/self", flags, Mode::empty()).map_err(while_doing("open /proc/self"))
}

fn write_map(process: &OwnedFd, name: &str, map: &str) -> Result<()> {
    let file = openat(process, name, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
    let mut file = File::from(file.map_err(while_doing(format!("open {name}")))?);
    // The kernel takes a map in a single write, or not at all.
    match file.write(map.as_bytes()) {
        Ok(count) if count == map.len() => Ok(()),
        Ok(_) => Err(Failure::new(format!("{name} was written in part"))),
        Err(error) => Err(Failure::new(format!(
            "cannot write {name} ({}): {error}; the unit has to grant CAP_SETUID and CAP_SETGID",
            map.trim_end().replace('\n', ", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_has_the_owner_and_the_range() {
        assert_eq!(map(997, Subids(Ids { start: 65536, count: 131_072 })), "0 997 1\n65536 65536 131072\n");
    }
}
