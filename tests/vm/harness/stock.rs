//! Nix's own finder of roots for an unprivileged daemon, beside ours.

use super::machine::Machine;
use super::nixcmd::NIX;
use anyhow::Result;

/// Where it listens: below a state directory of its own, so that ours can be asked at the same time.
pub const SOCKET: &str = "/srv/stock/gc-roots-socket/socket";
/// Its unit.
pub const UNIT: &str = "stock-roots.service";

/// Starts `nix store roots-daemon` as root, with all privileges.
pub fn roots_daemon(machine: &Machine) -> Result<()> {
    start(machine, "local?state=/srv/stock", SOCKET)
}

/// The same in place of ours: the stock recipe.
pub fn in_place_of_ours(machine: &Machine) -> Result<()> {
    let socket = "/nix/var/nix/gc-roots-socket/socket";
    machine.root(&format!("systemctl stop nix-root-scan.service nix-root-scan.socket; rm -f {socket}"))?;
    start(machine, "local", socket)
}

fn start(machine: &Machine, store: &str, socket: &str) -> Result<()> {
    machine.root(&format!(
        "systemd-run -q --unit={UNIT} -p Environment=HOME=/root $(command -v nix) {} store roots-daemon --store '{store}'
         for i in $(seq 100); do if [ -S {socket} ]; then exit; fi; sleep 0.1; done; journalctl -u {UNIT}; exit 1",
        NIX.trim_start_matches("nix ")
    ))?;
    Ok(())
}
