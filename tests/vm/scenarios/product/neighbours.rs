//! Hostile neighbours of the gate: users who open connections without end, and clients that are no ordinary ones.

use super::migrated;
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::nixcmd::{self, Trust};
use crate::harness::product;
use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

const SOCKET: &str = "/nix/var/nix/daemon-socket/socket";
/// Opens that many connections, and keeps them, or closes each at once; says how many that was.
const FLOOD: &str = r#"use IO::Socket::UNIX; my @kept; my ($count, $keep) = @ARGV;
for (1..$count) { my $c = IO::Socket::UNIX->new(Peer => "/nix/var/nix/daemon-socket/socket") or die "no: $!"; push @kept, $c if $keep; }
open my $said, ">", "/tmp/flood"; print $said $count; close $said; sleep 1000 if $keep;
"#;
/// The limit in the unit, and the one for this test: the real one would fill this machine's memory.
const REAL_LIMIT: usize = 1024;
const LIMIT: usize = 20;

#[test]
fn one_user_cannot_lock_the_others_out() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "flood")?;
    machine.write_file("/opt/flood.pl", "0644", FLOOD)?;
    machine.root(&format!(
        "d=/etc/systemd/system/nix-daemon-gate.service.d; mkdir -p $d
         start=$(sed -n 's/^ExecStart=//p' /etc/systemd/system/nix-daemon-gate.service)
         case $start in *'--max-per-user {REAL_LIMIT}') ;; *) exit 1 ;; esac
         printf '[Service]\nExecStart=\nExecStart=%s\n' \"${{start%{REAL_LIMIT}}}{LIMIT}\" >$d/limit.conf
         systemctl daemon-reload; systemctl stop nix-daemon-gate.service"
    ))?;
    // More in a moment than systemd's own limit of triggers (20 in 2 s) before a socket is shut for good.
    machine.user("carol", "rm -f /tmp/flood; perl /opt/flood.pl 600 0; test $(cat /tmp/flood) = 600")?;
    // They are served in order: bob waits for all of hers.
    served(&machine, "bob")?;
    daemons(&machine, 0)?;
    machine.background("carol", "rm -f /tmp/flood; ulimit -n 4096; perl /opt/flood.pl 3000 1")?;
    machine.root("for i in $(seq 300); do [ \"$(cat /tmp/flood 2>/dev/null)\" = 3000 ] && exit; sleep 0.1; done; exit 1")?;
    daemons(&machine, LIMIT)?;
    for user in ["alice", "bob", "root"] {
        served(&machine, user)?;
    }
    let refused = machine.try_user("carol", &format!("{} store info --store daemon", nixcmd::NIX))?;
    ensure!(refused.status != 0 && refused.stderr.contains("too many connections"), "carol: {refused}");
    let lines: usize = machine
        .root("journalctl -b -o cat -u nix-daemon-gate | grep -c 'refused a connection of uid'")?
        .parse()?;
    ensure!(lines < 300, "{lines} lines in the journal");
    machine.root("pkill -f '^perl /opt/flood.pl'")?;
    daemons(&machine, 0)?;
    ensure!(nixcmd::trust(&machine, "carol")? == Trust::Untrusted, "carol is not served any more");
    unharmed(&machine)
}

/// A peer whose process the machine cannot see, as the host is to this container, is a client like others, and no harm to them.
#[test]
fn a_client_from_outside_the_container_does_no_harm() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "outside")?;
    let directory =
        File::open(machine.tree().join(SOCKET.trim_start_matches('/')).parent().context("a parent")?)?;
    let mut connection = UnixStream::connect(format!("/proc/self/fd/{}/socket", directory.as_raw_fd()))?;
    connection.set_read_timeout(Some(Duration::from_secs(30)))?;
    // The client speaks first (`WORKER_MAGIC_1`, version 1.35, little endian); the daemon's magic comes back.
    std::io::Write::write_all(
        &mut connection,
        &[0x63, 0x78, 0x69, 0x6e, 0, 0, 0, 0, 0x23, 1, 0, 0, 0, 0, 0, 0],
    )?;
    let mut magic = [0; 8];
    connection.read_exact(&mut magic).context("the daemon hung up")?;
    ensure!(magic == [0x6f, 0x69, 0x78, 0x64, 0, 0, 0, 0], "{magic:x?}");
    drop(connection);
    served(&machine, "bob")?;
    unharmed(&machine)
}

/// What a daemon that was killed leaves behind ends too, while other connections go on.
#[test]
fn what_a_killed_daemon_leaves_running_ends() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "leftovers")?;
    let sleeper = |name: &str, seconds: u32| {
        machine.background("bob", &nixcmd::nix_build(name, &format!("$bb sleep {seconds}")))?;
        machine.root(&format!(
            "for i in $(seq 200); do pgrep -f 'busybox sleep {seconds}$' && exit; sleep 0.1; done; exit 1"
        ))
    };
    let kept = sleeper("kept", 4711)?;
    let left = sleeper("left", 4712)?;
    // The daemon is a child of the gate; the build is somewhere below it.
    let daemon = |process: &str| {
        machine.root(&format!(
            "gate=$(systemctl show -P MainPID nix-daemon-gate.service); p={process}
             while q=$(sed -n 's/^PPid:\\s*//p' /proc/$p/status); [ $q != $gate ]; do [ $q -gt 1 ] || exit 1; p=$q; done; echo $p"
        ))
    };
    let (kept_daemon, left_daemon) = (daemon(&kept)?, daemon(&left)?);
    ensure!(kept_daemon != left_daemon, "both builds belong to {kept_daemon}");
    machine.root(&format!("kill -KILL {left_daemon}"))?;
    machine
        .root("for i in $(seq 200); do pgrep -f 'busybox sleep 4712$' || exit 0; sleep 0.1; done; exit 1")?;
    machine.root(&format!("test -d /proc/{kept_daemon}; pgrep -f 'busybox sleep 4711$'"))?;
    // Stopped, the gate ends the other one as well.
    machine.root("systemctl stop nix-daemon-gate.service; ! pgrep -f 'busybox sleep 4711$'")?;
    open_for_all(&machine)
}

/// Waits until so many daemons run.
fn daemons(machine: &Machine, wanted: usize) -> Result<()> {
    let count = "$(pgrep -c -x nix-daemon || true)";
    machine.root(&format!(
        "for i in $(seq 300); do n={count}; [ $n = {wanted} ] && exit; sleep 0.1; done; echo $n daemons; exit 1"
    ))?;
    Ok(())
}

pub(super) fn served(machine: &Machine, user: &str) -> Result<()> {
    let expected = if ["root", "alice"].contains(&user) { Trust::Trusted } else { Trust::Untrusted };
    let seen = nixcmd::trust(machine, user)?;
    ensure!(seen == expected, "{user} is {seen:?}");
    Ok(())
}

pub(super) fn unharmed(machine: &Machine) -> Result<()> {
    open_for_all(machine)?;
    product::ok(machine, "verify")?;
    Ok(())
}

/// Without a look at the store, where a build that was killed leaves its output.
pub(super) fn open_for_all(machine: &Machine) -> Result<()> {
    let socket = machine.root("systemctl show nix-daemon.socket -P ActiveState -P Result")?;
    ensure!(socket == "active\nsuccess", "the socket is {socket}");
    served(machine, "root")?;
    served(machine, "bob")
}
