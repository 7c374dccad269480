//! The programs under test in a machine.

use super::exec::Outcome;
use super::machine::Machine;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::time::Duration;

/// Where the programs are put in a machine; nothing of the product, so no manifest looks there.
pub const DIR: &str = "/root/nix-unroot";
const PROGRAMS: [&str; 3] = ["nix-unroot", "nix-root-scan", "nix-daemon-gate"];

/// Puts the programs of this build into the machine.
pub fn install(machine: &Machine) -> Result<()> {
    for program in PROGRAMS {
        let path = built(program)?;
        machine.install_file(&path, &format!("{DIR}/{program}"), "0755")?;
    }
    Ok(())
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
