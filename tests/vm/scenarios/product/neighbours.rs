//! Hostile neighbours of the gate: users who open connections without end, and processes of the account that it runs as.

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
/// Opens that many connections, says so, and keeps those that it got for as long as its standard input is open, or closes each at once.
const FLOOD: &str = r#"use IO::Socket::UNIX; my @kept; my ($count, $keep) = @ARGV;
for (1..$count) { my $c = IO::Socket::UNIX->new(Peer => "/nix/var/nix/daemon-socket/socket") or die "no: $!"; push @kept, $c if $keep; }
print "opened\n"; sleep 1000 if $keep;
"#;
const LIMIT: usize = 20;

#[test]
fn one_user_cannot_lock_the_others_out() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "flood")?;
    machine.write_file("/opt/flood.pl", "0644", FLOOD)?;
    // The same limit, lower: the real one would fill this machine's memory.
    machine.root(&format!(
        "d=/etc/systemd/system/nix-daemon-gate.service.d; mkdir -p $d
         start=$(sed -n 's/^ExecStart=//p' /etc/systemd/system/nix-daemon-gate.service)
         case $start in *'--max-per-user 1024') ;; *) exit 1 ;; esac
         printf '[Service]\nExecStart=\nExecStart=%s\n' \"${{start%1024}}{LIMIT}\" >$d/limit.conf; systemctl daemon-reload"
    ))?;
    // Daemons that serve carol's processes, by what the gate tells them.
    let count = "count() { for p in $(pgrep -x nix-daemon); do \
                   c=$(tr '\\0' '\\n' </proc/$p/environ | sed -n 's/^NIX_DAEMON_GATE_CLIENT=//p'); \
                   [ \"$(stat -c %U /proc/$c 2>/dev/null)\" = carol ] && echo $p; done | wc -l; }; count";
    let settled = |wanted: usize| {
        machine.root(&format!("for i in $(seq 600); do n=$({count} || true); [ $n = {wanted} ] && exit; sleep 0.1; done; echo $n; exit 1"))
    };
    // More in a moment than systemd's own limit of triggers (200 in 2 s) before a socket is shut for good.
    machine.user("carol", "perl /opt/flood.pl 600 0")?;
    // They are served in order: bob waits for all of hers.
    served(&machine, "bob")?;
    settled(0)?;
    machine.background("carol", "perl /opt/flood.pl 200 1")?;
    settled(LIMIT)?;
    for user in ["alice", "bob", "root"] {
        served(&machine, user)?;
    }
    let refused = machine.try_user("carol", &format!("{} store info --store daemon", nixcmd::NIX))?;
    ensure!(refused.status != 0 && refused.stderr.contains("too many connections"), "carol: {refused}");
    machine.root("pkill -f '^perl /opt/flood.pl'")?;
    settled(0)?;
    ensure!(nixcmd::trust(&machine, "carol")? == Trust::Untrusted, "carol is not served any more");
    unharmed(&machine)
}

/// A peer whose process systemd cannot see, as the host is to this container, is a client like others, and no harm to them.
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

/// Processes of the account that the gate runs as, which a bug in the daemon may give to somebody, get nothing of the gate's
/// privileges: not from the writer of the id maps, not from the gate, not by running it.
#[test]
fn the_gates_own_account_cannot_become_more() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "own-account")?;
    // A gate that waits for its configuration, with a writer that waits for it.
    machine.root("mv /etc/nix/nix.conf /root; mkfifo -m 0644 /etc/nix/nix.conf")?;
    // The client has to find another one.
    machine
        .background("alice", &format!("NIX_CONF_DIR=/var/empty {} store info --store daemon", nixcmd::NIX))?;
    let (gate, writer) = machine
        .root(
            "for i in $(seq 100); do set -- $(pgrep -o -x nix-daemon-gate) $(pgrep -n -x nix-daemon-gate)
             [ $# = 2 ] && [ $1 != $2 ] && { echo $1 $2; exit; }; sleep 0.1; done; exit 1",
        )?
        .split_once(' ')
        .map(|(gate, writer)| (gate.to_owned(), writer.to_owned()))
        .context("no gate and writer")?;
    let capabilities =
        |process: &str, set: &str| machine.root(&format!("sed -n 's/^{set}:\\s*//p' /proc/{process}/status"));
    for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        let held = capabilities(&gate, set)?;
        ensure!(held == "0000000000000000", "the gate has {set} {held} while it reads a file");
    }
    ensure!(
        capabilities(&writer, "CapPrm")? == "00000000000000c0",
        "the writer has to have something to steal"
    );
    ensure!(capabilities(&writer, "CapEff")? == "0000000000000000", "in effect while it waits");
    let as_nix = |script: &str| {
        machine.try_root(&format!("exec setpriv --reuid=nix --regid=nix --clear-groups bash -c '{script}'"))
    };
    // What shows that the attacks work at all: the same on a process of its own.
    let attacks = [
        "timeout 2 strace -p PID",
        "cat /proc/PID/environ",
        "ls /proc/PID/fd/",
        "cat /proc/PID/maps",
        "exec 3<>/proc/PID/mem",
        "ls /proc/PID/root/",
        "readlink /proc/PID/exe",
    ];
    for attack in attacks {
        let own = as_nix(&format!("sleep 100 & {}; r=$?; kill $!; exit $r", attack.replace("PID", "$!")))?;
        ensure!(own.status == 0 || own.status == 124, "`{attack}` does not work at all: {own}");
        let tried = as_nix(&attack.replace("PID", &writer))?;
        ensure!(![0, 124].contains(&tried.status), "`{attack}` works on the writer: {tried}");
    }
    // Run by hand it has no privileges to give; and what it and systemd open is root's, all the way up.
    let gate_file =
        machine.root("sed -n 's/^ExecStart=\\([^ ]*\\).*/\\1/p' /etc/systemd/system/nix-daemon-gate.service")?;
    let modes =
        machine.root(&format!("stat -c '%U %a' {gate_file}; getfattr -m security.capability {gate_file}"))?;
    ensure!(modes == "root 755", "{gate_file}: {modes}");
    let preload = as_nix(&format!(
        "LD_PRELOAD=/tmp/evil.so {gate_file} --daemon /bin/sh --subids 65536:65536 --conf /etc/passwd; grep Cap /proc/self/status"
    ))?;
    ensure!(preload.stdout.contains("CapPrm:\t0000000000000000"), "{preload}");
    for file in
        [gate_file.as_str(), "/etc/nix", "/etc/systemd/system/nix-daemon-gate.service", "/etc/passwd", SOCKET]
    {
        let script = format!(
            "f={file}; while [ $f != / ]; do [ $f != {SOCKET} ] && [ -w $f ] && echo $f; f=$(dirname $f); done; exit 0"
        );
        let writable = as_nix(&script)?.ok()?;
        // The directory itself is nix's to write, but not to rename what root has in it: it is sticky.
        ensure!(writable.is_empty() || writable == "/nix/var/nix", "{file}: writable for nix: {writable}");
    }
    let renamed = as_nix("mv /nix/var/nix/daemon-socket /nix/var/nix/old-socket")?;
    ensure!(renamed.status != 0, "the socket's directory can be swapped: {renamed}");
    machine.root("(timeout 2 tee /etc/nix/nix.conf </dev/null >/dev/null || true); rm /etc/nix/nix.conf; mv /root/nix.conf /etc/nix")?;
    served(&machine, "bob")
}

fn served(machine: &Machine, user: &str) -> Result<()> {
    let expected = if ["root", "alice"].contains(&user) { Trust::Trusted } else { Trust::Untrusted };
    let seen = nixcmd::trust(machine, user)?;
    ensure!(seen == expected, "{user} is {seen:?}");
    Ok(())
}

fn unharmed(machine: &Machine) -> Result<()> {
    let socket = machine.root("systemctl show nix-daemon.socket -P ActiveState -P Result")?;
    ensure!(socket == "active\nsuccess", "the socket is {socket}");
    product::ok(machine, "verify")?;
    Ok(())
}
