//! Processes of the account that the gate runs as, which a bug in the daemon may give to somebody, get nothing of the gate's privileges:
//! not from the process that accepts, not from the writer of the id maps, not from a connection's process, not by running the gate.

use super::migrated;
use super::neighbours::{open_for_all, served, unharmed};
use crate::harness::exec::Outcome;
use crate::harness::layout::Layout;
use crate::harness::library;
use crate::harness::machine::Machine;
use crate::harness::nixcmd;
use anyhow::{Context, Result, ensure};

const UNIT: &str = "/etc/systemd/system/nix-daemon-gate.service";
const SOCKET: &str = "/nix/var/nix/daemon-socket/socket";
const NOTHING: &str = "0000000000000000";
/// `CAP_SETUID` and `CAP_SETGID`.
const TWO: &str = "00000000000000c0";

/// Attacks on a process; that on one's own shows that they work.
const ATTACKS: [&str; 8] = [
    "timeout 2 strace -p PID",
    "cat /proc/PID/environ",
    "ls /proc/PID/fd/",
    "cat /proc/PID/maps",
    "exec 3<>/proc/PID/mem",
    "ls /proc/PID/root/",
    "readlink /proc/PID/exe",
    "readlink /proc/PID/ns/user",
];

fn as_nix(machine: &Machine, script: &str) -> Result<Outcome> {
    machine.try_root(&format!("exec setpriv --reuid=nix --regid=nix --clear-groups bash -c '{script}'"))
}

#[test]
fn the_gates_processes_are_closed_to_it() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "own-account")?;
    // A connection that waits for its configuration, with a writer that waits for it. The client has to find another one.
    machine.root("mv /etc/nix/nix.conf /root; mkfifo -m 0644 /etc/nix/nix.conf")?;
    machine
        .background("alice", &format!("NIX_CONF_DIR=/var/empty {} store info --store daemon", nixcmd::NIX))?;
    let processes = machine.root(
        "for i in $(seq 200); do set -- $(pgrep -x nix-daemon-gate | sort -n)
         [ $# = 3 ] && { echo $@; exit; }; sleep 0.1; done; exit 1",
    )?;
    let [acceptor, connection, writer] = processes.split(' ').collect::<Vec<_>>()[..] else {
        anyhow::bail!("not three processes: {processes}")
    };
    let main = machine.root("systemctl show -P MainPID nix-daemon-gate.service")?;
    ensure!(acceptor == main, "the main process is {main}, not {acceptor}");
    for (name, process, permitted) in
        [("acceptor", acceptor, TWO), ("connection", connection, NOTHING), ("writer", writer, TWO)]
    {
        for (set, expected) in
            [("CapPrm", permitted), ("CapEff", NOTHING), ("CapInh", NOTHING), ("CapAmb", NOTHING)]
        {
            let held = machine.root(&format!("sed -n 's/^{set}:\\s*//p' /proc/{process}/status"))?;
            ensure!(held == expected, "the {name} has {set} {held}");
        }
    }
    for attack in ATTACKS {
        let own = as_nix(
            &machine,
            &format!("sleep 100 & {}; r=$?; kill $!; exit $r", attack.replace("PID", "$!")),
        )?;
        ensure!(own.status == 0 || own.status == 124, "`{attack}` does not work at all: {own}");
        for (name, process) in [("acceptor", acceptor), ("writer", writer)] {
            let tried = as_nix(&machine, &attack.replace("PID", process))?;
            ensure!(![0, 124].contains(&tried.status), "`{attack}` works on the {name}: {tried}");
        }
    }
    // The acceptor reads no name service, in whose libraries anything may be.
    let libraries = machine.root(&format!("grep -o '/[^ ]*libnss[^ ]*' /proc/{acceptor}/maps || true"))?;
    ensure!(libraries.is_empty(), "the acceptor has loaded {libraries}");
    machine.root("(timeout 2 tee /etc/nix/nix.conf </dev/null >/dev/null || true); rm /etc/nix/nix.conf; mv /root/nix.conf /etc/nix")?;
    served(&machine, "bob")?;

    // It can kill what has its uid. Then clients wait a moment, however often that happens.
    for signal in ["KILL", "TERM", "SEGV"] {
        let killed = as_nix(
            &machine,
            &format!(
                "for i in $(seq 15); do pkill -{signal} -o -x nix-daemon-gate && n=x$n; sleep 0.1; done; test -n \"$n\""
            ),
        )?;
        ensure!(killed.status == 0, "nothing was killed with {signal}: {killed}");
        served(&machine, "bob").with_context(|| format!("after SIG{signal}"))?;
    }
    unharmed(&machine)
}

/// Variables of the loader come neither from a client nor from nix into a process with privileges.
#[test]
fn no_foreign_library_runs_with_privileges() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "preload")?;
    library::install(&machine, include_str!("../../fixtures/gate/preload.rs"), "/opt/preload.so")?;
    machine.root("chmod 0755 /opt; install -d -m 1777 /tmp/marks")?;
    let variables = "LD_PRELOAD=/opt/preload.so LD_AUDIT=/opt/preload.so LD_LIBRARY_PATH=/opt GLIBC_TUNABLES=glibc.malloc.check=1";
    let gate_file = machine.root(&format!("sed -n 's/^ExecStart=\\([^ ]*\\).*/\\1/p' {UNIT}"))?;

    // Control: the library works, in a gate that nix runs. That one has nothing to give.
    let modes =
        machine.root(&format!("stat -c '%U %a' {gate_file}; getfattr -m security.capability {gate_file}"))?;
    ensure!(modes == "root 755", "{gate_file}: {modes}");
    let own = format!("{variables} {gate_file} --daemon /bin/sh --subids 65536:65536 --conf /etc/passwd");
    let own = as_nix(&machine, &own)?;
    ensure!(own.status == 1 && own.stderr.contains("no socket was passed"), "{own}");
    let mark = machine.root("cat /tmp/marks/nix-daemon-gate")?;
    ensure!(mark.contains(&format!("CapPrm:\t{NOTHING}")), "the gate run by nix had {mark}");
    machine.root("rm /tmp/marks/*")?;

    // A client with such variables is served by processes without them. It starts the gate, too.
    machine.root("systemctl stop nix-daemon-gate.service")?;
    let build = nixcmd::nix_build("preload", "$bb sleep 5");
    machine.background("bob", &format!("export {variables}; {build} --no-out-link"))?;
    let environment = machine.root(
        "for i in $(seq 200); do pgrep -f 'busybox sleep 5$' >/dev/null && break; sleep 0.1; done
         for p in $(pgrep -x 'nix-daemon|nix-daemon-gate'); do tr '\\0' '\\n' </proc/$p/environ; done",
    )?;
    ensure!(environment.contains("NIX_DAEMON_GATE_CLIENT="), "no daemon: {environment}");
    ensure!(
        !environment.lines().any(|line| line.starts_with("LD_") || line.starts_with("GLIBC")),
        "{environment}"
    );
    let marks = machine.root("ls /tmp/marks")?;
    ensure!(marks.contains("nix-build"), "the client did not load it: {marks}");
    ensure!(!marks.contains("nix-daemon"), "loaded: {marks}");

    // Even if root puts it into the gate's unit, it does not get into the daemon, which parses what clients say.
    machine.root(
        "d=/etc/systemd/system/nix-daemon-gate.service.d; mkdir -p $d; rm /tmp/marks/*
         printf '[Service]\\nEnvironment=LD_PRELOAD=/opt/preload.so\\n' >$d/preload.conf; systemctl daemon-reload; systemctl stop nix-daemon-gate.service",
    )?;
    served(&machine, "bob")?;
    let marks = machine.root("ls /tmp/marks; rm /etc/systemd/system/nix-daemon-gate.service.d/preload.conf; systemctl daemon-reload; systemctl stop nix-daemon-gate.service")?;
    ensure!(marks == "nix-daemon-gate", "{marks}");
    open_for_all(&machine)
}

/// What the gate and systemd open for it is root's, all the way up.
#[test]
fn what_the_gate_opens_cannot_be_replaced() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "replace")?;
    let gate_file = machine.root(&format!("sed -n 's/^ExecStart=\\([^ ]*\\).*/\\1/p' {UNIT}"))?;
    let daemon = machine.root(&format!("sed -n 's/^ExecStart=.*--daemon \\([^ ]*\\).*/\\1/p' {UNIT}"))?;
    let files = [
        &gate_file,
        &daemon,
        "/etc/nix/nix.conf",
        "/etc/nsswitch.conf",
        UNIT,
        "/etc/passwd",
        "/etc/group",
        SOCKET,
    ];
    for file in files {
        let script = format!(
            "f={file}; while [ $f != / ]; do [ $f != {SOCKET} ] && [ -w $f ] && echo $f; f=$(dirname $f); done; exit 0"
        );
        let writable = as_nix(&machine, &script)?.ok()?;
        // The directory itself is nix's to write, but not to rename what root has in it: it is sticky.
        ensure!(writable.is_empty() || writable == "/nix/var/nix", "{file}: writable for nix: {writable}");
        for attack in ["echo >/tmp/mine; mv -f /tmp/mine FILE", "rm -f FILE", "ln -sfn /tmp/mine FILE"] {
            let tried = as_nix(&machine, &attack.replace("FILE", file))?;
            ensure!(tried.status != 0, "`{attack}` works on {file}: {tried}");
        }
    }
    let renamed = as_nix(&machine, "mv /nix/var/nix/daemon-socket /nix/var/nix/old-socket")?;
    ensure!(renamed.status != 0, "the socket's directory can be swapped: {renamed}");
    // The same does work where nix may.
    as_nix(&machine, "echo >/tmp/mine; mv -f /tmp/mine /nix/var/nix/mine && rm -f /nix/var/nix/mine")?
        .ok()?;
    served(&machine, "bob")
}
