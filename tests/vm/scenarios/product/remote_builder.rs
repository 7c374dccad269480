//! A remote builder, reached by ssh with what the machine's own configuration says.

use super::migrated;
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use anyhow::{Result, ensure};

/// The builder: another account and another store on the same machine, behind its own sshd.
const PREPARE: &str = r#"
useradd -m -s /bin/bash builder; mkdir -p /run/sshd; ip link set lo up
install -d -o nix -g nix -m 700 ~nixhome/.ssh
ssh-keygen -q -t ed25519 -N '' -f ~nixhome/.ssh/far_key; chown nix:nix ~nixhome/.ssh/far_key*
install -d -o builder -m 700 /home/builder/.ssh
install -o builder -m 600 ~nixhome/.ssh/far_key.pub /home/builder/.ssh/authorized_keys
printf '#!/bin/sh\nNIX_CONFIG="store = /home/builder/root\nbuilders =\nsystem-features = far" exec nix-daemon "$@"\n' >/usr/local/bin/far-daemon
chmod 755 /usr/local/bin/far-daemon
/usr/sbin/sshd -p 2222
"#;

const MACHINES: &str =
    "ssh-ng://builder@far?remote-program=/usr/local/bin/far-daemon x86_64-linux - 1 1 far\n";

/// Found only by whoever reads all of it: a file of root's that is included, one of root's that it includes, and one in the daemon's home
/// that root wrote there.
const INCLUDED: [(&str, &str); 3] = [
    ("/etc/ssh/ssh_config.d/far.conf", "Host far\n  HostName 127.0.0.1\n  Include /etc/nix/far-port\n"),
    ("/etc/nix/far-port", "Port 2222\n"),
    (
        "/var/lib/nix-daemon/.ssh/config",
        "Host far\n  IdentityFile ~/.ssh/far_key\n  StrictHostKeyChecking accept-new\n",
    ),
];

const FAR_NIX: &str = r#"{ name }: derivation { inherit name; system = "x86_64-linux"; builder = "${/opt/nix-unroot-tests/tools}/busybox";
  args = [ "sh" "-c" "echo far >$out" ]; requiredSystemFeatures = [ "far" ]; }
"#;

#[test]
fn builds_go_to_a_remote_builder() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "remote")?;
    machine.root(&PREPARE.replace("~nixhome", "/var/lib/nix-daemon"))?;
    for (path, text) in INCLUDED {
        machine.write_file(path, "0644", text)?;
    }
    machine.write_file("/etc/nix/machines", "0644", MACHINES)?;
    machine.write_file("/opt/far.nix", "0644", FAR_NIX)?;
    let path = machine.user("bob", &far("bob-far"))?;
    machine.root(&format!("test \"$(cat {path})\" = far; test -e /home/builder/root{path}"))?;
    // What ssh learns it writes below `~`, which is a directory of the daemon's.
    machine.root("test $(stat -c %U /var/lib/nix-daemon/.ssh/known_hosts) = nix")?;
    assert_foreign_files_are_refused(&machine)
}

/// ssh does not read what others than root and its own user own, and the namespace is no way around that.
fn assert_foreign_files_are_refused(machine: &Machine) -> Result<()> {
    machine.root("chown alice /etc/nix/far-port")?;
    let refused = machine.try_user("bob", &far("bob-far-again"))?;
    ensure!(refused.status != 0, "ssh read a file of alice's: {refused}");
    let log = machine.root("journalctl -b --no-pager | grep 'Bad owner' | tail -1")?;
    ensure!(
        log.contains("Bad owner or permissions on /etc/nix/far-port"),
        "it failed for another reason: {log}"
    );
    machine.root("chown root /etc/nix/far-port")?;
    machine.user("bob", &far("bob-far-again"))?;
    Ok(())
}

fn far(name: &str) -> String {
    format!("nix-build --no-out-link /opt/far.nix --argstr name {name}")
}
