//! Measures an installation against the steps of the official script: same archive, same kind of machine, by turns.
//!
//!     cargo build --release --workspace
//!     cargo run --release --example measure-install -- 5

// The measurement uses a part of what the tests use.
#[allow(dead_code)]
mod harness;

use anyhow::{Context, Result};
use harness::layout::archive;
use harness::machine::Machine;
use harness::{exec::host, image, product};
use std::path::Path;
use std::time::{Duration, Instant};

const ARCHIVE: &str = "/root/nix.tar.xz";
const OFFICIAL: &str = "sha256sum nix.tar.xz; mkdir unpacked; tar -C unpacked -xJf nix.tar.xz; bash unpacked/*/install; rm -rf unpacked";

fn main() -> Result<()> {
    let runs: usize = std::env::args().nth(1).map_or(Ok(5), |runs| runs.parse())?;
    let scratch = tempfile::tempdir()?;
    let xz = scratch.path().join("nix.tar.xz");
    host("sh")
        .args(["-c", "xz -6 -c \"$1\" >\"$2\"", "sh"])
        .arg(archive::cached()?.file())
        .arg(&xz)
        .timeout(Duration::from_secs(900))
        .ok()?;
    let digest = host("sha256sum").arg(&xz).ok()?;
    let digest = digest.split(' ').next().context("sha256sum says nothing")?;
    println!("archive: {} bytes as xz", std::fs::metadata(&xz)?.len());
    let ours = format!(
        "{}/nix-unroot install --yes --nix-archive {ARCHIVE} --nix-archive-sha256 {digest}",
        product::DIR
    );
    let mut ratios = Vec::new();
    for run in 1..=runs {
        let official = time(&xz, OFFICIAL)?;
        let ours = time(&xz, &ours)?;
        println!("{run}: official {official:.2} s, nix-unroot {ours:.2} s, ratio {:.2}", ours / official);
        ratios.push(ours / official);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio: {:.2}", ratios[ratios.len() / 2]);
    Ok(())
}

/// How long a script takes on a machine of its own, in seconds, until the disk has it all.
fn time(archive: &Path, script: &str) -> Result<f64> {
    let mut machine = Machine::copy_of(&image::without_nix()?.join("tree"), "measure")?;
    product::install(&machine)?;
    machine.install_file(archive, ARCHIVE, "0644")?;
    // tar calls it; the machine's packages do not bring it.
    machine.install_file(Path::new("/usr/bin/xz"), "/usr/bin/xz", "0755")?;
    machine.boot()?;
    machine.root("sync")?;
    let start = Instant::now();
    machine.shell("root", &format!("{script}; sync -f /nix"))?.timeout(Duration::from_secs(600)).ok()?;
    Ok(start.elapsed().as_secs_f64())
}
