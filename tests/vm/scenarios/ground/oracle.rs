//! The manifest is equal when nothing changed, and sees every kind of change.

use crate::harness::before;
use crate::harness::layout::{self, Layout};
use crate::harness::machine::Machine;
use crate::harness::manifest::Manifest;
use crate::harness::strace;
use anyhow::{Result, ensure};

/// A socket starts the service with the first client; the machines are compared with the service running.
fn wake_daemon(machine: &Machine) -> Result<()> {
    crate::harness::nixcmd::trust(machine, "alice")?;
    Ok(())
}

#[test]
fn an_untouched_machine_stays_the_same() -> Result<()> {
    for layout in layout::ALL {
        let (mut machine, _) = before(layout, "same")?;
        wake_daemon(&machine)?;
        let first = Manifest::take(&machine)?;
        first.assert_same(&Manifest::take(&machine)?, "a moment later")?;
        machine.reboot()?;
        wake_daemon(&machine)?;
        first.assert_same(&Manifest::take(&machine)?, "after a reboot")?;
    }
    Ok(())
}

/// What to change as root, and the line that must tell of it: how it begins and, after two spaces, what else is in it.
const CHANGES: &[(&str, &str)] = &[
    ("echo x >>/etc/hostname", "! /etc/hostname  sha256:"),
    ("chmod 0755 /etc/login.defs", "! /etc/login.defs  mode: 0644 -> 0755"),
    ("chown alice: /etc/debian_version", "! /etc/debian_version  owner: 0:0 -> 1"),
    ("chown -h 0:12 /nix/store/.links", "! /nix/store/.links  owner: 0:0 -> 0:12"),
    ("touch -h -d @2 $(readlink /home/alice/result)", "! /nix/store/  mtime: 1.000000000 -> 2.000000000"),
    ("ln -sfn /elsewhere /etc/localtime", "! /etc/localtime  target:"),
    ("setfattr -n user.note -v hi /etc/profile", "! /etc/profile  xattrs: none -> user.note=6869"),
    ("setfacl -m u:bob:r /etc/shells", "! /etc/shells  xattrs: none -> system.posix_acl_access="),
    ("echo new >/usr/local/sbin/new", "+ /usr/local/sbin/new  (mode 0644"),
    ("rm /etc/issue", "- /etc/issue  ("),
    ("rm /etc/motd; mkdir /etc/motd", "! /etc/motd  "),
    ("ln /usr/bin/env /usr/bin/env.link", "! /usr/bin/env  hard links: none -> 2 from /usr/bin/env"),
    ("useradd -r planted", "! /etc/passwd  sha256:"),
    ("echo planted:1:1 >>/etc/subuid", "! /etc/subuid  sha256:"),
    ("systemctl mask nix-daemon.service", "! unit: nix-daemon.service  enablement: enabled -> masked"),
    (
        "systemctl stop nix-daemon.service nix-daemon.socket",
        "! unit: nix-daemon.socket  active: active -> inactive",
    ),
    (
        "systemctl enable systemd-networkd.service",
        "! unit: systemd-networkd.service  enablement: disabled -> enabled",
    ),
    (
        "sqlite3 /nix/var/nix/db/db.sqlite 'update ValidPaths set registrationTime = 7 where id = 1'",
        "- db: ValidPaths id=1 ",
    ),
    ("chown nobody /nix/var/nix/db/db.sqlite", "! /nix/var/nix/db/db.sqlite  owner: 0:0 -> 65534:0"),
];

#[test]
fn every_kind_of_change_is_noticed() -> Result<()> {
    let (machine, _) = before(Layout::Debian, "changes")?;
    wake_daemon(&machine)?;
    let first = Manifest::take(&machine)?;
    for (change, _) in CHANGES {
        machine.root(change)?;
    }
    let differences = first.differences(&Manifest::take(&machine)?);
    for (change, expected) in CHANGES {
        let (thing, property) = expected.split_once("  ").unwrap_or((expected, ""));
        ensure!(
            differences.iter().any(|line| line.starts_with(thing) && line.contains(property)),
            "`{change}` went unnoticed: no `{expected}` in\n{}",
            differences.join("\n")
        );
    }
    Ok(())
}

#[test]
fn a_traced_command_that_writes_is_noticed() -> Result<()> {
    let (machine, _) = before(Layout::Debian, "traced")?;
    let quiet =
        strace::writes_of(&machine, "sh -c 'ls /etc 2>/dev/null; systemctl show nix-daemon.socket'", 0)?;
    ensure!(quiet.is_empty(), "nothing was written, but:\n{}", quiet.join("\n"));
    for script in
        ["mkdir /opt/x", "cp -a /etc/profile /opt/y", "chown bob /opt/y", "mv /opt/y /opt/z", ": >>/opt/z"]
    {
        let seen = strace::writes_of(&machine, &format!("sh -c 'echo ran; {script}'"), 0)?;
        ensure!(!seen.is_empty(), "`{script}` went unnoticed");
    }
    Ok(())
}
