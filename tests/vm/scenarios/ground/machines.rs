//! Machines boot, reboot, run commands as anybody, and go.

use crate::harness::layout::{self, Layout};
use crate::harness::populate::COUNT_HOLDERS;
use crate::harness::{before, nixcmd};
use anyhow::{Result, ensure};

#[test]
fn both_layouts_boot_and_look_like_themselves() -> Result<()> {
    for layout in layout::ALL {
        let (machine, _) = before(layout, "boot")?;
        let (service, state) = match layout {
            Layout::Debian => ("/usr/lib/systemd/system/nix-daemon.service", "enabled"),
            Layout::Official => ("/etc/systemd/system/nix-daemon.service", "linked"),
        };
        let fragment = machine.root("systemctl show -P FragmentPath nix-daemon.service")?;
        ensure!(fragment == service, "{layout:?}: the service comes from {fragment}");
        let enabled = machine.try_root("systemctl is-enabled nix-daemon.service")?.stdout;
        ensure!(enabled.trim() == state, "{layout:?}: the service is {enabled}");
        let nix = machine.user("bob", "realpath $(command -v nix)")?;
        ensure!(nix.starts_with("/nix/store/") == (layout == Layout::Official), "{layout:?}: nix is {nix}");
        let failed = machine.root("systemctl --failed --no-legend --plain")?;
        ensure!(!failed.contains("nix"), "{layout:?}: failed units: {failed}");
    }
    Ok(())
}

#[test]
fn a_reboot_keeps_the_disk_and_ends_the_processes() -> Result<()> {
    let (mut machine, world) = before(Layout::Debian, "reboot")?;
    world.hold(&machine)?;
    machine.root("touch /var/kept /run/lost")?;
    machine.reboot()?;
    machine.root("test -e /var/kept; test ! -e /run/lost")?;
    ensure!(machine.root(COUNT_HOLDERS)? == "0", "processes outlived the reboot");
    ensure!(nixcmd::trust(&machine, "root")? == nixcmd::Trust::Trusted);
    Ok(())
}

#[test]
fn a_failing_command_tells_all() -> Result<()> {
    let (machine, _) = before(Layout::Debian, "message")?;
    let error = machine.user("bob", "echo seen; ls /root; echo not reached").unwrap_err().to_string();
    ensure!(
        error.contains("bob: echo seen") && error.contains("seen") && error.contains("Permission denied"),
        "{error}"
    );
    ensure!(!error.contains("not reached\n"), "{error}");
    let slow =
        machine.shell("bob", "echo early; sleep 1000")?.timeout(std::time::Duration::from_millis(700)).run();
    let error = slow.unwrap_err().to_string();
    ensure!(error.contains("took longer") && error.contains("early"), "{error}");
    Ok(())
}
