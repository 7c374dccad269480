//! The same tree boots with Debian's own kernel.

use crate::harness::layout::Layout;
use crate::harness::nixcmd::{self, Trust};
use crate::harness::populated;
use anyhow::{Result, ensure};

#[test]
fn a_virtual_machine_boots_builds_and_reboots() -> Result<()> {
    let (machine, world) = populated(Layout::Debian, "ground-vm")?;
    let mut machine = machine.into_virtual_machine();
    machine.boot()?;
    ensure!(machine.root("systemd-detect-virt --container || true")? == "none");
    let kernel = machine.root("uname -r")?;
    ensure!(kernel.contains("cloud"), "not Debian's kernel: {kernel}");
    ensure!(nixcmd::trust(&machine, "alice")? == Trust::Trusted);
    let ids = nixcmd::build_uid(&machine, "bob", "bob-vm")?;
    ensure!(ids.owner == 0, "{ids:?}");
    let error = machine.user("bob", "echo 'two  words'; cat /etc/shadow").unwrap_err().to_string();
    ensure!(error.contains("two  words") && error.contains("Permission denied"), "{error}");
    machine.reboot()?;
    world.assert_live(&machine)
}
