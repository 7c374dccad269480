//! Who is at the other end of a Unix socket.
//!
//! `SO_PEERCRED` names whoever called listen(2), which is systemd. So the kernel is asked for the other end's inode, as
//! ss(8) does (sock_diag(7), `UNIX_DIAG_PEER`), and every process for the files it holds. A kernel without that module is no
//! obstacle where our gate accepts: the environment of each connection's daemon names the client's process.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

/// `SOCK_DIAG_BY_FAMILY` and `NLMSG_ERROR` of `linux/netlink.h` and `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
const ERROR: u16 = 2;
/// `UDIAG_SHOW_PEER` and `UNIX_DIAG_PEER` of `linux/unix_diag.h`.
const SHOW_PEER: u32 = 4;
const PEER: u16 = 2;
/// Lengths of `struct nlmsghdr` and `struct unix_diag_msg`.
const HEADER: usize = 16;
const MESSAGE: usize = 16;

/// The processes that hold the other end of `stream`, without the first process: systemd keeps the connection of a
/// service that it started for it.
///
/// # Errors
/// When the kernel does not tell, or `/proc` cannot be read.
pub(super) fn holders(stream: &UnixStream) -> io::Result<Vec<i32>> {
    match other_end(inode(stream)?) {
        Ok(inode) => {
            let name = format!("socket:[{inode}]");
            processes(|pid| files(pid).any(|link| link == name))
        }
        // What the kernel says when it has no unix_diag.
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {
            let ours = std::process::id().to_string();
            processes(|pid| serves_client(pid, &ours) && files(pid).any(|link| link.starts_with("socket:")))
        }
        Err(error) => Err(error),
    }
}

/// Whether [`holders`] finds the other end of one of several connections of ours, and not of all of them.
pub(super) fn tells_connections_apart() -> bool {
    UnixStream::pair().is_ok_and(|(ours, _theirs)| inode(&ours).is_ok_and(|inode| other_end(inode).is_ok()))
}

/// Inodes of sockets are 32 bits wide, here and in the kernel's answer.
fn inode(stream: &UnixStream) -> io::Result<u32> {
    Ok(nix::sys::stat::fstat(stream.as_fd())?.st_ino as u32)
}

fn processes(wanted: impl Fn(i32) -> bool) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if pid != 1 && wanted(pid) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// What the files of a process are; nothing for a process that ended meanwhile.
fn files(pid: i32) -> impl Iterator<Item = String> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| Some(fs::read_link(file.path()).ok()?.to_string_lossy().into_owned()))
}

/// Whether a process is a daemon that the gate started for the process `client`. Anybody can have an environment like that, but not be in the
/// gate's unit.
fn serves_client(pid: i32, client: &str) -> bool {
    let of = |file| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    in_gates_unit(&of("cgroup")) && names_client(&of("environ"), client)
}

fn in_gates_unit(groups: &[u8]) -> bool {
    groups.split(|byte| *byte == b'\n').any(|line| line.ends_with(b"/nix-daemon-gate.service"))
}

fn names_client(environment: &[u8], client: &str) -> bool {
    // `CLIENT` of the gate's `exec.rs`.
    let variable = format!("NIX_DAEMON_GATE_CLIENT={client}");
    environment.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
}

fn other_end(inode: u32) -> io::Result<u32> {
    let diag = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    setsockopt(&diag, sockopt::ReceiveTimeout, &TimeVal::seconds(10))?;
    let mut diag = File::from(diag);
    let mut request = Vec::with_capacity(40);
    request.extend(40_u32.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    // NLM_F_REQUEST; sequence number and port, unused
    request.extend(1_u16.to_ne_bytes());
    request.extend([0; 8]);
    // AF_UNIX, no protocol; any state; the socket; what to show; no cookie
    request.extend([1, 0, 0, 0]);
    for word in [u32::MAX, inode, SHOW_PEER, u32::MAX, u32::MAX] {
        request.extend(word.to_ne_bytes());
    }
    diag.write_all(&request)?;
    let mut answer = [0; 4096];
    let length = diag.read(&mut answer)?;
    peer_in(&answer[..length])
}

/// The peer's inode in an answer of sock_diag.
fn peer_in(answer: &[u8]) -> io::Result<u32> {
    let short = || io::Error::new(io::ErrorKind::InvalidData, "sock_diag's answer makes no sense");
    let word = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    match half(4).ok_or_else(short)? {
        BY_FAMILY => {}
        // The kernel's answer holds the negated error number.
        ERROR => {
            let number = word(HEADER).ok_or_else(short)?.cast_signed();
            return Err(io::Error::from_raw_os_error(number.saturating_neg()));
        }
        _ => return Err(short()),
    }
    let mut at = HEADER + MESSAGE;
    while let (Some(length), Some(kind)) = (half(at), half(at + 2)) {
        if kind == PEER {
            // An end that has been closed keeps its place but has no inode.
            return word(at + 4).filter(|inode| *inode != 0).ok_or_else(short);
        }
        at += usize::from(length).max(4).next_multiple_of(4);
    }
    Err(io::Error::new(io::ErrorKind::NotConnected, "the socket has no other end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_other_end_of_a_pair() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert_eq!(other_end(inode(&ours).unwrap()).unwrap(), inode(&theirs).unwrap());
        assert!(holders(&ours).unwrap().contains(&std::process::id().cast_signed()));
        drop(theirs);
        assert!(other_end(inode(&ours).unwrap()).is_err());
        assert!(tells_connections_apart());
    }

    #[test]
    fn a_daemon_is_known_by_its_unit_and_its_client() {
        assert!(in_gates_unit(b"0::/system.slice/nix-daemon-gate.service\n"));
        assert!(in_gates_unit(
            b"2:cpu:/\n1:name=systemd:/system.slice/nix-daemon-gate.service\n0::/system.slice/nix-daemon-gate.service\n"
        ));
        assert!(!in_gates_unit(
            b"0::/user.slice/x-nix-daemon-gate.service\n0::/nix-daemon-gate.service/below\n"
        ));
        let environment = b"HOME=/\0NIX_DAEMON_GATE_CLIENT=4711\0X=1\0";
        assert!(names_client(environment, "4711"));
        assert!(!names_client(environment, "471") && !names_client(environment, "47110"));
        assert!(!names_client(b"X=NIX_DAEMON_GATE_CLIENT=4711\0", "4711"));
    }

    #[test]
    fn an_answer_is_never_read_past_its_end() {
        for length in 0..40 {
            assert!(peer_in(&vec![0; length]).is_err(), "{length} bytes");
        }
        let mut endless = vec![0; 40];
        endless[4] = 20;
        assert!(peer_in(&endless).is_err());
    }
}
