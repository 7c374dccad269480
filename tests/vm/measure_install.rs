//! Measures an installation, and its removal, against the steps of the official script: same archive, same kind of machine, by
//! turns.
//!
//!     cargo build --release --workspace
//!     cargo run --release --example measure-install -- 5
//!     cargo run --release --example measure-install -- 1 steps     # also when each step of ours began, and how long it took

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
/// The official script's steps, as its fixture has them, with unpacking before.
const OFFICIAL: &str = "sha256sum nix.tar.xz; mkdir unpacked; tar -C unpacked -xJf nix.tar.xz; bash unpacked/*/install; rm -rf unpacked";
/// What Nix's manual says for removing that again ("Uninstalling Nix", multi-user on Linux); there is no script for it.
const OFFICIAL_REMOVAL: &str = "
    systemctl stop nix-daemon.service nix-daemon.socket
    systemctl disable nix-daemon.socket nix-daemon.service
    systemctl daemon-reload
    rm -rf /etc/nix /etc/profile.d/nix.sh /etc/tmpfiles.d/nix-daemon.conf /nix ~root/.nix-channels ~root/.nix-defexpr ~root/.nix-profile
    for i in $(seq 1 32); do userdel nixbld$i; done
    if getent group nixbld >/dev/null; then groupdel nixbld; fi
    mv /etc/bash.bashrc.backup-before-nix /etc/bash.bashrc";

/// Seconds of installation and removal: the official way, and ours.
type Round = ([f64; 2], [f64; 2]);

fn main() -> Result<()> {
    let runs: usize = std::env::args().nth(1).map_or(Ok(5), |runs| runs.parse())?;
    let show_steps = std::env::args().nth(2).is_some_and(|word| word == "steps");
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
    let our_removal = format!("{}/nix-unroot uninstall --yes", product::DIR);
    let mut rounds = Vec::new();
    for round in 1..=runs {
        let (official, _) = times(&xz, [OFFICIAL, OFFICIAL_REMOVAL])?;
        let (ours, machine) = times(&xz, [&ours, &our_removal])?;
        if show_steps {
            steps(&machine)?;
        }
        println!("{round}: official {official:.2?} s, nix-unroot {ours:.2?} s (installation, removal)");
        rounds.push((official, ours));
    }
    for (at, what) in ["installation", "removal"].into_iter().enumerate() {
        let of = |pick: &dyn Fn(&Round) -> f64| median(rounds.iter().map(pick).collect());
        println!(
            "{what}: official {:.2} s, nix-unroot {:.2} s, ratio {:.2} (medians, the ratio of each round)",
            of(&|round| round.0[at]),
            of(&|round| round.1[at]),
            of(&|round| round.1[at] / round.0[at])
        );
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How long scripts take, one after the other, on a machine of their own, in seconds, each until the disk has it all.
fn times(archive: &Path, scripts: [&str; 2]) -> Result<([f64; 2], Machine)> {
    let mut machine = Machine::copy_of(&image::without_nix()?.join("tree"), "measure")?;
    product::install(&machine)?;
    machine.install_file(archive, ARCHIVE, "0644")?;
    // tar calls it; the machine's packages do not bring it.
    machine.install_file(Path::new("/usr/bin/xz"), "/usr/bin/xz", "0755")?;
    machine.boot()?;
    let mut times = [0.0; 2];
    for (time, script) in times.iter_mut().zip(scripts) {
        machine.root("sync")?;
        let start = Instant::now();
        machine.shell("root", &format!("{script}; sync -f /root"))?.timeout(Duration::from_secs(600)).ok()?;
        *time = start.elapsed().as_secs_f64();
    }
    Ok((times, machine))
}

/// Prints what the log of each run says of its steps: when one ended, and its milliseconds.
fn steps(machine: &Machine) -> Result<()> {
    for run in 1.. {
        let log = machine.tree().join(format!("var/lib/nix-unroot/run-{run}.log"));
        let Ok(log) = std::fs::read_to_string(log) else { return Ok(()) };
        for line in log.lines() {
            let event: serde_json::Value =
                serde_json::from_str(line).context("a line of the log is no JSON")?;
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            let time = text("time");
            println!("{} {:>6} {:<12} {}", &time[11..], event["ms"], text("result"), text("text").trim());
        }
    }
    Ok(())
}
