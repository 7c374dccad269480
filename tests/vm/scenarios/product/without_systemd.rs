//! The gate on a machine where no init system starts it.

use super::migrated;
use crate::harness::layout::Layout;
use crate::harness::nixcmd::{self, Trust};
use anyhow::{Result, ensure};

/// In a PID namespace of its own with a shell as its first process, and without a word from systemd, the gate makes its socket, becomes the
/// store's owner and serves.
#[test]
fn the_gate_listens_by_itself() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "no-init")?;
    let socket = "/nix/var/nix/daemon-socket/socket";
    let start = "unit=/etc/systemd/system/nix-daemon-gate.service; program=$(sed -n 's/^ExecStart=//p' $unit)
        exec env -i PATH=/usr/bin:/bin $program --listen /nix/var/nix/daemon-socket/socket --mode 0666";
    machine.root("systemctl stop nix-daemon.socket nix-daemon-gate.service nix-root-scan.socket")?;
    let as_root = machine.try_root(start)?;
    ensure!(as_root.status == 1 && as_root.stderr.contains("--user UID:GID"), "root may serve: {as_root}");
    machine.write_file(
        "/root/start",
        "0755",
        format!("#!/bin/bash\n{start} --user $(id -u nix):$(id -g nix)\n"),
    )?;
    machine.background("root", "exec unshare --pid --fork --mount-proc sh -c '/root/start; :' 2>/tmp/log")?;
    machine.root(&format!(
        "for i in $(seq 100); do [ -S {socket} ] && exit; sleep 0.1; done; cat /tmp/log; exit 1"
    ))?;
    for (user, trust) in [("root", Trust::Trusted), ("alice", Trust::Trusted), ("bob", Trust::Untrusted)] {
        let seen = nixcmd::trust(&machine, user)?;
        ensure!(seen == trust, "{user} is {seen:?}");
    }
    let range = super::target::subuids(&machine)?;
    let ids = nixcmd::build_uid(&machine, "bob", "no-init")?;
    ensure!(range.contains(&ids.outside), "built as {}, not one of {range:?}", ids.outside);
    let gate = machine.root("pgrep -o -x nix-daemon-gate")?;
    let status = machine
        .root(&format!("grep -E '^(Uid|Groups|CapPrm|CapEff|CapBnd|NoNewPrivs):' /proc/{gate}/status"))?;
    let nix = machine.root("id -u nix")?;
    for expected in [
        format!("Uid:\t{nix}\t{nix}\t{nix}\t{nix}"),
        "CapPrm:\t00000000000000c0".to_owned(),
        "CapEff:\t0000000000000000".to_owned(),
        "CapBnd:\t00000000000000c0".to_owned(),
        "NoNewPrivs:\t1".to_owned(),
    ] {
        ensure!(status.contains(&expected), "{expected:?} is missing: {status}");
    }
    let second = machine.try_root("/root/start")?;
    ensure!(second.status == 1 && second.stderr.contains("already"), "two serve: {second}");
    // A build that runs ends with the gate.
    machine.background("bob", &nixcmd::nix_build("long", "$bb sleep 4713"))?;
    machine
        .root("for i in $(seq 200); do pgrep -f 'busybox sleep 4713$' && exit; sleep 0.1; done; exit 1")?;
    machine.root(&format!("kill {gate}; for i in $(seq 200); do pgrep -x 'nix-daemon|nix-daemon-gate' || exit 0; sleep 0.1; done; exit 1"))?;
    machine.root("! pgrep -f 'busybox sleep 4713$'")?;
    // What it left behind does not keep it from starting again, nor systemd.
    machine.background("root", "exec /root/start")?;
    machine.root(&format!(
        "for i in $(seq 100); do ss -lx | grep -q {socket} && exit; sleep 0.1; done; exit 1"
    ))?;
    ensure!(nixcmd::trust(&machine, "bob")? == Trust::Untrusted, "bob is not served");
    machine.root("pkill -o -x nix-daemon-gate; for i in $(seq 100); do pgrep -x nix-daemon-gate || exit 0; sleep 0.1; done; exit 1")?;
    machine.root("systemctl start nix-root-scan.socket nix-daemon.socket")?;
    super::neighbours::open_for_all(&machine)
}
