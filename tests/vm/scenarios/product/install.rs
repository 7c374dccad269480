//! A machine without Nix gets an unprivileged one, and is rid of it again.

use super::target::{assert_nothing_of_root, subuids};
use crate::harness::layout::archive;
use crate::harness::machine::Machine;
use crate::harness::manifest::Manifest;
use crate::harness::{image, nixcmd, product};
use anyhow::{Result, ensure};

/// Where the archive lies in a machine.
const ARCHIVE: &str = "/root/nix.tar";

/// A booted machine without any Nix, with a user, the programs under test and an archive.
fn clean(test: &str) -> Result<Machine> {
    let base = image::without_nix()?;
    let mut machine = Machine::copy_of(&base.join("tree"), test)?;
    product::install(&machine)?;
    machine.install_file(&archive::cached()?.file(), ARCHIVE, "0644")?;
    machine.boot()?;
    machine.root("useradd -m -s /bin/bash alice")?;
    Ok(machine)
}

/// The words that name the archive and its digest.
fn from_archive(machine: &Machine) -> Result<String> {
    let digest = machine.root(&format!("sha256sum {ARCHIVE} | cut -d' ' -f1"))?;
    Ok(format!("--nix-archive {ARCHIVE} --nix-archive-sha256 {digest}"))
}

/// A build as alice, whose login shell finds Nix by itself: the uid that it ran under.
fn build_as_alice(machine: &Machine, name: &str) -> Result<(String, u32)> {
    let expression = format!(
        "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         args = [ \"-c\" \"read inside outside count </proc/self/uid_map; echo $outside >$out\" ]; }}"
    );
    let path = machine.user("alice", &format!("nix-build --no-out-link -E '{expression}'"))?;
    let uid = machine.root(&format!("cat {path}"))?.trim().parse()?;
    Ok((path, uid))
}

#[test]
fn an_installed_nix_works_and_goes_without_a_trace() -> Result<()> {
    let machine = clean("install")?;
    let before = Manifest::take(&machine)?;
    product::ok(&machine, &format!("install --yes {}", from_archive(&machine)?))?;

    let (path, uid) = build_as_alice(&machine, "first")?;
    ensure!(subuids(&machine)?.contains(&uid), "the build ran as {uid}");
    ensure!(machine.root(&format!("stat -c %U {path}"))? == "nix");
    assert_nothing_of_root(&machine)?;
    for (path, expected) in [
        ("/nix", "root:root 755"),
        ("/nix/store", "root:nix 1775"),
        ("/nix/var/nix", "root:nix 1775"),
        ("/nix/var/nix/daemon-socket", "root:root 755"),
        ("/nix/var/nix/gc-roots-socket", "root:root 755"),
        ("/nix/var/nix/db/db.sqlite", "nix:nix 644"),
        ("/etc/profile.d/nix.sh", "root:root 644"),
    ] {
        let seen = machine.root(&format!("stat -c '%U:%G %a' {path}"))?;
        ensure!(seen == expected, "{path} is {seen}, should be {expected}");
    }
    // What is registered is there, to the bit.
    machine.user("alice", "nix-store --verify --check-contents")?;
    product::ok(&machine, "verify")?;

    let again = product::run(&machine, &format!("install --yes {}", from_archive(&machine)?))?.exits(0)?;
    ensure!(again.stderr.contains("nothing to do"), "{again}");

    product::ok(&machine, "rollback --yes")?;
    before.assert_same(&Manifest::take(&machine)?, "after an installation and its rollback")
}
