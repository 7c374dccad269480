//! The programs under test in a machine.

use super::exec::{Outcome, host};
use super::machine::Machine;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::time::Duration;

/// Where the programs are put in a machine; nothing of the product, so no manifest looks there.
pub const DIR: &str = "/root/nix-unroot";
const PROGRAMS: [&str; 4] = ["nix-unroot", "nix-root-scan", "nix-daemon-gate", "nix-build-broker"];

/// Puts the programs of this build into the machine.
pub fn install(machine: &Machine) -> Result<()> {
    let dir = stripped()?;
    for program in PROGRAMS {
        machine.install_file(&dir.path().join(program), &format!("{DIR}/{program}"), "0755")?;
    }
    Ok(())
}

/// The programs of this build without symbols, which are half of a debug build: a run copies the programs, and reads the copies.
fn stripped() -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    for program in PROGRAMS {
        host("strip").arg("-o").arg(dir.path().join(program)).arg(built(program)?).ok()?;
    }
    Ok(dir)
}

/// A release of this build in a new directory, as `scripts/release` packs it.
pub fn release() -> Result<tempfile::TempDir> {
    let dir = stripped()?;
    let out = tempfile::tempdir()?;
    host(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/release"))
        .arg("--programs")
        .arg(dir.path())
        .arg("--output")
        .arg(out.path())
        .ok()?;
    Ok(out)
}

/// Runs `nix-unroot` with these arguments as root.
pub fn run(machine: &Machine, arguments: &str) -> Result<Outcome> {
    machine.shell("root", &format!("{DIR}/nix-unroot {arguments}"))?.timeout(Duration::from_secs(600)).run()
}

/// Runs `nix-unroot`; it must exit 0. Its standard output.
pub fn ok(machine: &Machine, arguments: &str) -> Result<String> {
    run(machine, arguments)?.ok()
}

/// A program of the same build as this test, which lies in `target/PROFILE/deps/` (a demonstration in `examples/`).
fn built(program: &str) -> Result<PathBuf> {
    let path = directory()?.join(program);
    ensure!(path.exists(), "{} is missing: run cargo build --workspace first", path.display());
    Ok(path)
}

/// Where the programs of this build lie on the host.
pub fn directory() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let profile = test.parent().and_then(|deps| deps.parent());
    Ok(profile.context("the test runs from a strange place")?.to_owned())
}
