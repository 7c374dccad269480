//! Two at once: a second run, package managers and other installers meet a lock and a message.

use super::interrupted::{killed_at, manifest};
use super::ready;
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::nixcmd::nix_build;
use crate::harness::product;
use anyhow::{Result, ensure};

/// A package whose installation takes as long as a file is there.
const SLOW_PACKAGE: &str = r#"
mkdir -p /root/slow/DEBIAN; cd /root/slow
printf 'Package: slow\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: slow\n' >DEBIAN/control
printf '#!/bin/sh\nwhile [ -e /run/slow ]; do sleep 0.1; done\n' >DEBIAN/postinst
chmod 755 DEBIAN/postinst; dpkg-deb --build --root-owner-group /root/slow /root/slow.deb >/dev/null
"#;

/// Takes the lock of a file as rpm and the account tools do, and keeps it.
const LIKE_RPM: &str = "perl -e 'use Fcntl; open my $f, \"+<\", $ARGV[0] or die; my $l = pack(\"s s x4 q q i\", F_WRLCK, 0, 0, 0, 0); fcntl($f, F_SETLK, $l) or die; sleep 1000'";

#[test]
fn package_managers_and_installers_are_waited_for() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "package-manager")?;
    machine.root(SLOW_PACKAGE)?;
    let before = manifest(&machine)?;
    // Each: who is at work, how one sees that, what a run says, and what ends it.
    let cases = [
        (
            "touch /run/slow; dpkg -i /root/slow.deb",
            "pgrep -f 'slow.postins[t]'",
            "holds /var/lib/dpkg/lock-frontend",
            "rm /run/slow; while pgrep -x dpkg; do sleep 0.1; done; dpkg --purge slow",
        ),
        (
            &format!(
                "mkdir -p /var/lib/rpm; touch /var/lib/rpm/.rpm.lock; {LIKE_RPM} /var/lib/rpm/.rpm.lock"
            ),
            "pgrep -f '^perl.*rpm.loc[k]'",
            "holds /var/lib/rpm/.rpm.lock",
            "pkill -f '^perl.*rpm.loc[k]'; rm -r /var/lib/rpm",
        ),
        (
            "mkdir -p /var/lib/pacman; touch /var/lib/pacman/db.lck",
            "test -e /var/lib/pacman/db.lck",
            "/var/lib/pacman/db.lck is there",
            "rm -r /var/lib/pacman",
        ),
        (
            "echo 'sleep 1000; true' >/run/install-multi-user; bash /run/install-multi-user",
            "pgrep -f 'install-multi-use[r]'",
            "another installer of Nix",
            "pkill -f 'install-multi-use[r]'",
        ),
    ];
    for (at_work, seen, said, ended) in cases {
        machine.background("root", at_work)?;
        machine
            .root(&format!("for i in $(seq 200); do {seen} >/dev/null && exit 0; sleep 0.1; done; exit 1"))?;
        // Without a journal there is nothing to roll back, and nothing to lock.
        for (journal, command) in [("true", "migrate --yes"), ("touch journal.sqlite", "rollback --yes")] {
            machine
                .root(&format!("mkdir -p -m 0700 /var/lib/nix-unroot; cd /var/lib/nix-unroot; {journal}"))?;
            let refused = product::run(&machine, command)?.exits(3)?;
            ensure!(refused.stderr.contains(said) && refused.stderr.contains("wait"), "{said}: {refused}");
            machine.root("rm -r /var/lib/nix-unroot")?;
        }
        machine.root(&format!("{ended} >/dev/null"))?;
    }
    let noise =
        |line: &&String| !line[2..].starts_with("/var/lib/dpkg") && !line[2..].starts_with("/var/cache");
    let differences = before.differences(&manifest(&machine)?);
    let changed: Vec<_> = differences.iter().filter(noise).collect();
    ensure!(changed.is_empty(), "refused runs changed something: {changed:#?}");
    Ok(())
}

/// While a run is at work, here because it waits for a build, neither another one nor dpkg begins.
#[test]
fn a_run_keeps_the_others_out() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "keeps-out")?;
    machine.root(SLOW_PACKAGE)?;
    machine.background("alice", &format!("{} --no-out-link", nix_build("held", "sleep 100000")))?;
    let wait = |seen: &str| {
        machine.root(&format!("for i in $(seq 300); do {seen} >/dev/null && exit 0; sleep 0.1; done; exit 1"))
    };
    wait("pgrep -f 'sleep 10000[0]'")?;
    let log = "/tmp/first.log";
    machine.background(
        "root",
        &format!("{}/nix-unroot migrate --yes >{log} 2>&1; echo $? >/tmp/first", product::DIR),
    )?;
    wait(&format!("grep -q 'done make-scan-memory' {log}"))?;
    for command in ["migrate --yes", "rollback --yes", "resume --yes", "rollback --from-copy --yes"] {
        let refused = product::run(&machine, command)?.exits(3)?;
        let said = refused.stdout.clone() + &refused.stderr;
        ensure!(said.contains("another run") || said.contains("run is in progress"), "{command}: {refused}");
    }
    machine.root("! ls /var/lib/nix-unroot/*damaged*")?;
    let refused = machine.try_root("dpkg -i /root/slow.deb")?;
    ensure!(refused.status == 2 && refused.stderr.contains("dpkg frontend lock was locked by"), "{refused}");
    finished(&machine)
}

/// Who edits accounts holds their lock meanwhile.
#[test]
fn whoever_edits_accounts_is_waited_for() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "account-lock")?;
    let before = manifest(&machine)?;
    killed_at(&machine, "do:create-nix-user:done", "migrate --yes")?;
    machine.background("root", &format!("{LIKE_RPM} /etc/.pwd.lock"))?;
    machine
        .root("for i in $(seq 100); do pgrep -f '^perl.*pwd.loc[k]' && exit 0; sleep 0.1; done; exit 1")?;
    let refused = product::run(&machine, "resume --yes")?;
    ensure!(refused.status != 0 && refused.stderr.contains("/etc/.pwd.lock"), "{refused}");
    machine.root("pkill -f '^perl.*pwd.loc[k]'")?;
    product::ok(&machine, "rollback --yes")?;
    before.assert_same(&manifest(&machine)?, "after a run that met the lock of the accounts")
}

fn finished(machine: &Machine) -> Result<()> {
    machine.root("pkill -f 'sleep 10000[0]'; for i in $(seq 900); do [ -e /tmp/first ] && break; sleep 0.1; done; cat /tmp/first.log; test $(cat /tmp/first) = 0")?;
    super::target::assert_migrated(machine)?;
    machine.root("dpkg -i /root/slow.deb")?;
    Ok(())
}
