//! What the gate costs: the root daemon on one machine and the gate on another, on this host, measured by turns. Figures: docs/performance.md.
//!
//!     cargo build --release --workspace
//!     cargo test --release --test vm -- --ignored --nocapture benchmark

use super::{migrated, ready};
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use anyhow::{Context, Result};

const SCRIPT: &str = include_str!("../../fixtures/gate/bench.pl");
const PACKAGES: &str = include_str!("../../fixtures/gate/bench.nix");

/// What is measured: its name in the script, in words, how often.
const WORK: [(&str, &str, usize); 5] = [
    ("info", "one `nix store info`", 30),
    ("row", "200 in a row", 3),
    ("once", "50 at once", 3),
    ("build", "a build of 101 derivations", 3),
    ("copy", "copying 1 GiB in", 3),
];

#[test]
#[ignore = "a benchmark, of some minutes"]
fn benchmark() -> Result<()> {
    let (root, _) = ready(Layout::Debian, "bench-root")?;
    let (gate, _) = migrated(Layout::Debian, "bench-gate")?;
    // As a migration sets it.
    root.root("echo 'sandbox = true' >>/etc/nix/nix.conf; systemctl restart nix-daemon.service")?;
    let machines = [&root, &gate];
    for machine in machines {
        machine.write_file("/opt/bench.pl", "0644", SCRIPT)?;
        machine.write_file("/opt/bench.nix", "0644", PACKAGES)?;
        machine.root("head -c 1G /dev/urandom >/var/tmp/gib; chmod 0755 /opt; chmod 0644 /var/tmp/gib")?;
    }
    println!("{:28} {:>22} {:>22}  ratio of medians", "", "root daemon", "gate");
    for (what, words, rounds) in WORK {
        // One before those that count.
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..=rounds {
            for (machine, times) in machines.iter().zip(&mut times) {
                let seconds = measure(machine, what, round)?;
                if round > 0 {
                    times.push(seconds);
                }
            }
        }
        let [root, gate] = times.map(Times::new);
        println!("{words:28} {root:>22} {gate:>22}  {:.2}", gate.median / root.median);
    }
    Ok(())
}

fn measure(machine: &Machine, what: &str, round: usize) -> Result<f64> {
    let said = machine.user("alice", &format!("perl /opt/bench.pl {what} {round}"))?;
    if what == "copy" {
        machine.user("alice", "NIX_REMOTE=daemon nix-store --delete $(cat /var/tmp/copied-copy) 2>&1")?;
    }
    said.trim().parse().with_context(|| format!("{what}: {said}"))
}

/// Measurements of one kind, in seconds.
struct Times {
    median: f64,
    least: f64,
    most: f64,
}

impl Times {
    fn new(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self { median: times[times.len() / 2], least: times[0], most: times[times.len() - 1] }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = if self.median < 1.0 {
            format!("{:.1} ms ({:.1}-{:.1})", self.median * 1e3, self.least * 1e3, self.most * 1e3)
        } else {
            format!("{:.2} s ({:.2}-{:.2})", self.median, self.least, self.most)
        };
        f.pad(&text)
    }
}
