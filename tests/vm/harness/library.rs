//! Shared libraries for machines, built by the host's compiler.

use super::machine::Machine;
use anyhow::{Context, Result, ensure};

/// Builds the source of a `cdylib` and puts it into the machine.
pub fn install(machine: &Machine, source: &str, to: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (file, library) = (dir.path().join("source.rs"), dir.path().join("library.so"));
    std::fs::write(&file, source)?;
    let rustc = std::process::Command::new("rustc")
        .args(["--edition=2024", "--crate-type=cdylib", "-Copt-level=1", "-Cpanic=abort", "-o"])
        .args([&library, &file])
        .output()
        .context("cannot run rustc")?;
    ensure!(rustc.status.success(), "rustc: {}", String::from_utf8_lossy(&rustc.stderr));
    machine.install_file(&library, to, "0644")
}
