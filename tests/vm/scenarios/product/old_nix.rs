//! A Nix that is too old to ask a root scanner: a migration brings a newer one along.

use super::install::{build_as_alice, from_archive, machine_of};
use super::target::subuids;
use crate::harness::manifest::Manifest;
use crate::harness::{image, product};
use anyhow::{Result, ensure};

#[test]
fn an_old_nix_is_migrated_with_a_newer_one_and_comes_back() -> Result<()> {
    let machine = machine_of(image::with_old_nix()?, "old-nix")?;
    let (kept, _) = build_as_alice(&machine, "before")?;
    machine.user("alice", &format!("nix-store --realise {kept} --add-root ~/result"))?;
    let old = machine.user("alice", "nix --version")?;
    ensure!(old.contains(" 2.26."), "this is no old Nix: {old}");
    // A build without a link leaves a root to a temporary file that is gone, which Nix removes when it looks for roots.
    machine.root("nix-store --gc --print-roots >/dev/null")?;
    let before = Manifest::take(&machine)?;

    let blocked = product::run(&machine, "migrate --yes")?.exits(3)?;
    ensure!(blocked.stdout.contains("nix-too-old") && blocked.stdout.contains("--nix-archive"), "{blocked}");
    let migrate = format!("migrate --yes {}", from_archive(&machine)?);
    let done = product::run(&machine, &migrate)?.exits(0)?;
    for part in ["the daemon runs from there", "/usr/bin/nix", "2.26."] {
        ensure!(done.stdout.contains(part), "{part:?} is missing: {done}");
    }

    // The package's programs are the clients, and the archive's Nix is the daemon.
    ensure!(machine.user("alice", "nix --version")? == old);
    let daemon = machine.user("alice", "nix --extra-experimental-features nix-command store info 2>&1")?;
    ensure!(daemon.contains("Version: 2.34."), "{daemon}");
    let (path, uid) = build_as_alice(&machine, "after")?;
    ensure!(subuids(&machine)?.contains(&uid), "the build ran as {uid}");
    product::ok(&machine, "verify")?;
    machine.root(&format!("NIX_REMOTE=daemon nix-store --gc; test -e {kept}; test ! -e {path}"))?;
    machine.user("alice", "/nix/var/nix/profiles/default/bin/nix-store --verify --check-contents")?;

    product::ok(&machine, "rollback --yes")?;
    // What was built since may stay; of this build only the log is left.
    machine
        .root("cd /nix/var/log/nix/drvs; rm */*-after.drv.bz2; find . -mindepth 1 -type d -empty -delete")?;
    before.assert_same(&Manifest::take(&machine)?, "after a migration with a newer Nix and its rollback")?;
    build_as_alice(&machine, "again")?;
    machine.root(&format!("nix-store --gc; test -e {kept}; nix-store --verify --check-contents"))?;
    Ok(())
}
