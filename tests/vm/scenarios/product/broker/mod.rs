//! The build broker, with Nix's own daemon under its own uid in front of it: what builds may, what they may not, and what the daemon may not.
//!
//! On Linux a migrated machine has no broker. These machines stand in for a Mac, in all but the sandbox profile.

mod builds;
mod hostile;

use super::migrated;
use crate::harness::exec::Outcome;
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::product;
use anyhow::{Result, ensure};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vm/fixtures/broker");
/// The uids of builds in `broker.service`.
const UIDS: std::ops::Range<u32> = 41000..41004;
/// What the daemon's unit has in place of `EXTERNAL`.
const CLIENT: &str = r#"external-builders = [{\"systems\":[\"SYSTEM\"],\"program\":\"/usr/local/libexec/nix-unroot/nix-build-broker\",\"args\":[ARGS]}]"#;
const ASK: &str = r#"\"client\",\"--socket\",\"/run/nix-build-broker/socket\""#;

/// A machine whose daemon gives builds to the broker.
fn with_broker(test: &str) -> Result<Machine> {
    let (machine, _) = migrated(Layout::Debian, test)?;
    machine.root(&format!(
        "systemctl stop nix-daemon.socket nix-daemon-gate.service
         install -D -m 0755 {}/nix-build-broker /usr/local/libexec/nix-unroot/nix-build-broker",
        product::DIR
    ))?;
    put(&machine, "builds.nix", "/opt/nix-unroot-tests/builds.nix", &[])?;
    put(&machine, "send.pl", "/opt/nix-unroot-tests/send.pl", &[])?;
    let client = machine.root("echo $(id -u nix):$(id -g nix)")?;
    put(&machine, "broker.service", "/etc/systemd/system/broker.service", &[("CLIENT", &client)])?;
    machine.root("systemctl daemon-reload; systemctl start broker.service")?;
    ready(&machine)?;
    daemon(&machine, "8", ASK)?;
    Ok(machine)
}

fn ready(machine: &Machine) -> Result<()> {
    machine.root("for i in $(seq 100); do [ -S /run/nix-build-broker/socket ] && exit; sleep 0.1; done; journalctl -u broker >&2; exit 1")?;
    Ok(())
}

/// Starts the daemon anew, with `max-jobs` and what it calls for a build; nothing when that is empty.
fn daemon(machine: &Machine, max_jobs: &str, args: &str) -> Result<()> {
    let external = if args.is_empty() { String::new() } else { CLIENT.replace("ARGS", args) };
    behind_the_socket(machine, "daemon.service", &[("EXTERNAL", &external), ("MAXJOBS", max_jobs)])
}

/// Starts the gate in the daemon's place, with these arguments more.
fn gate(machine: &Machine, more: &str) -> Result<()> {
    behind_the_socket(machine, "gate.service", &[("MORE", more)])
}

/// Has the daemon's socket served by this unit.
fn behind_the_socket(machine: &Machine, fixture: &str, values: &[(&str, &str)]) -> Result<()> {
    let system = machine.root("echo $(uname -m)-linux")?;
    let unit = "/etc/systemd/system/nix-daemon-gate.service";
    let program = machine.root(&format!("sed -n 's/.* --daemon \\([^ ]*\\).*/\\1/p' {unit}"))?;
    let values: Vec<_> =
        values.iter().copied().chain([("SYSTEM", &*system), ("NIXDAEMON", &*program)]).collect();
    machine.root("systemctl stop nix-daemon.socket 'broker-front-*.service'")?;
    put(machine, fixture, &format!("/etc/systemd/system/broker-front-{fixture}"), &values)?;
    machine.write_file(
        "/etc/systemd/system/nix-daemon.socket.d/broker.conf",
        "0644",
        format!("[Socket]\nService=broker-front-{fixture}\n"),
    )?;
    machine.root("systemctl daemon-reload; systemctl start nix-daemon.socket")?;
    Ok(())
}

fn put(machine: &Machine, fixture: &str, to: &str, values: &[(&str, &str)]) -> Result<()> {
    let mut text = std::fs::read_to_string(format!("{FIXTURES}/{fixture}"))?;
    for (name, value) in values {
        text = text.replace(name, value);
    }
    machine.write_file(to, "0644", text)
}

/// A `nix-build` of one of `builds.nix`.
fn nix_build(name: &str) -> String {
    format!("nix-build /opt/nix-unroot-tests/builds.nix --no-out-link -A {name}")
}

fn build(machine: &Machine, name: &str) -> Result<Outcome> {
    machine.try_user("bob", &nix_build(name))
}

/// Nothing of any build is left: no process, no directory.
fn nothing_left(machine: &Machine) -> Result<()> {
    let left = machine.root(
        "for i in $(seq 100); do left=$(ls -A /nix/var/nix/build-broker | grep -v '^lock$'; pgrep -u 41000,41001,41002,41003 || true)
         [ -z \"$left\" ] && exit; sleep 0.1; done; echo $left",
    )?;
    ensure!(left.is_empty(), "left behind: {left}");
    Ok(())
}
