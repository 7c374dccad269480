//! How fast the scanner is, next to Nix's own search. A sample in every run; `scripts/bench-root-scan` measures
//! (`docs/performance.md`).

use super::migrated;
use crate::harness::layout::Layout;
use crate::harness::stock;
use anyhow::Result;
use std::path::PathBuf;
use std::time::Duration;

#[test]
fn measured_next_to_the_stock_search() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "speed")?;
    let release = std::env::var_os("NIX_UNROOT_BENCH_SCANNER").map(PathBuf::from);
    let sizes = match &release {
        Some(scanner) => {
            machine.root("systemctl stop nix-root-scan.service")?;
            machine.install_file(scanner, "/usr/local/libexec/nix-unroot/nix-root-scan.new", "0755")?;
            machine.root("cd /usr/local/libexec/nix-unroot; mv nix-root-scan.new nix-root-scan")?;
            "11 100,1000,3000 100,10000,100000"
        }
        // Shows that the measurement works, not how fast a debug build is.
        None => "1 50 100",
    };
    stock::roots_daemon(&machine)?;
    machine.write_file("/opt/roots/bench.pl", "0644", include_str!("../../fixtures/roots/bench.pl"))?;
    let bench = machine.shell("root", &format!("chrt -f 20 perl /opt/roots/bench.pl {sizes} 2>&1"))?;
    println!("{}", bench.timeout(Duration::from_secs(1800)).ok()?);
    Ok(())
}
