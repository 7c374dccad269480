//! A machine as a virtual one with Debian's own kernel. Emulated without KVM, which nested hosts often only seem to have; so it is slow, but
//! its kernel, its `/proc`, its mounts and its first process are what a server has.

use super::cache::{self, Cached};
use super::exec::{self, Limited, host};
use super::image::{self, need_host_programs};
use super::machine::Running;
use anyhow::{Context, Result, bail};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const BOOT_TIMEOUT: Duration = Duration::from_secs(300);
/// What the cloud kernel has not built in, in the order in which they need each other.
const MODULES: [&str; 4] = [
    "kernel/net/core/failover.ko.xz",
    "kernel/drivers/net/net_failover.ko.xz",
    "kernel/drivers/net/virtio_net.ko.xz",
    "kernel/drivers/block/virtio_blk.ko.xz",
];
const INIT: &str = include_str!("../fixtures/qemu/init");
/// Files of the command channel, in the machine.
const AGENT: [(&str, &str, u32); 3] = [
    ("usr/local/lib/nu-agent", include_str!("../fixtures/qemu/agent"), 0o755),
    ("etc/systemd/system/nu-agent.socket", include_str!("../fixtures/qemu/nu-agent.socket"), 0o644),
    ("etc/systemd/system/nu-agent@.service", include_str!("../fixtures/qemu/nu-agent@.service"), 0o644),
];
const ASK: &str = include_str!("../fixtures/qemu/ask");

/// A running virtual machine.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    port: u16,
}

/// Boots `tree` as a virtual machine. The first time the tree becomes a disk image beside it, and from then on only
/// the image counts.
pub fn boot(tree: &Path) -> Result<Qemu> {
    let disk = disk(tree)?;
    boot_from(tree, &format!("file={},format=raw,if=virtio,cache=unsafe", disk.display()))
}

/// Boots from a disk that a [`LossyDisk`](super::lossy_disk::LossyDisk) serves at `socket`.
pub fn boot_lossy(tree: &Path, socket: &Path) -> Result<Qemu> {
    boot_from(tree, &format!("file=nbd:unix:{},format=raw,if=virtio,cache=writeback", socket.display()))
}

/// The disk image of `tree`, made now when there is none.
pub fn disk(tree: &Path) -> Result<PathBuf> {
    need_host_programs(&[("mke2fs", "e2fsprogs")])?;
    let disk = tree.with_file_name("disk.ext4");
    if !disk.exists() {
        make_disk(tree, &disk)?;
    }
    Ok(disk)
}

fn boot_from(tree: &Path, drive: &str) -> Result<Qemu> {
    need_host_programs(&[
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("xz", "xz-utils"),
        ("base64", "coreutils"),
    ])?;
    let kernel = kernel()?;
    let console = tree.with_file_name("console.log");
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut machine = Qemu { child: start(&kernel, drive, &console, port)?, port };
    let up = exec::poll(BOOT_TIMEOUT, || match machine.child.try_wait() {
        Ok(None) => machine.is_up().then_some(true),
        _ => Some(false),
    });
    if up != Some(true) {
        machine.kill();
        let said = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let (console, qemu) = (said(&console), said(&console.with_extension("qemu.log")));
        bail!("the virtual machine did not boot; its console said:\n{console}\nand the emulator:\n{qemu}");
    }
    Ok(machine)
}

impl Qemu {
    fn is_up(&self) -> bool {
        let asked = self
            .command(&["systemctl".into(), "is-system-running".into()])
            .timeout(Duration::from_secs(30))
            .run();
        asked.is_ok_and(|outcome| matches!(outcome.stdout.trim(), "running" | "degraded"))
    }
}

impl Running for Qemu {
    fn command(&self, argv: &[String]) -> Limited {
        host("bash").args(["-c", ASK, "ask"]).arg(self.port.to_string()).args(argv)
    }

    fn stop(&mut self) -> Result<()> {
        // The answer may get lost on the way down.
        drop(self.command(&["systemctl".into(), "poweroff".into()]).timeout(Duration::from_secs(30)).run());
        let ended = exec::poll(Duration::from_secs(180), || self.child.try_wait().transpose());
        ended.context("the virtual machine did not power off")??;
        Ok(())
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    fn enter_hint(&self) -> String {
        format!("bash -c \"$(cat tests/vm/fixtures/qemu/ask)\" ask {} COMMAND </dev/null", self.port)
    }
}

fn start(kernel: &Path, drive: &str, console: &Path, port: u16) -> Result<Child> {
    Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1536"])
        .args(["-nodefaults", "-no-reboot", "-display", "none"])
        .arg("-kernel")
        .arg(kernel.join("vmlinuz"))
        .arg("-initrd")
        .arg(kernel.join("initrd"))
        .args(["-append", "console=ttyS0 net.ifnames=0 quiet systemd.show_status=0"])
        .args(["-drive", drive])
        .arg("-netdev")
        .arg(format!("user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:5000"))
        .args(["-device", "virtio-net-pci,netdev=n,romfile="])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(console.with_extension("qemu.log"))?)
        .process_group(0)
        .spawn()
        .context("cannot start qemu-system-x86_64")
}

fn make_disk(tree: &Path, disk: &Path) -> Result<()> {
    for (name, text, mode) in AGENT {
        let path = tree.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    symlink(
        "/etc/systemd/system/nu-agent.socket",
        tree.join("etc/systemd/system/sockets.target.wants/nu-agent.socket"),
    )?;
    host("mke2fs").args(["-q", "-F", "-t", "ext4", "-L", "root", "-d"]).arg(tree).arg(disk).arg("2G").ok()?;
    Ok(())
}

/// A directory with `vmlinuz` and `initrd`, cached.
fn kernel() -> Result<Cached> {
    let busybox = image::without_nix()?.join("tree/usr/bin/busybox");
    cache::tree("kernel", &[&MODULES.concat(), include_str!("image.rs"), INIT], |dir| {
        let modules = image::cloud_kernel(dir)?;
        fs::copy(modules.join("vmlinuz"), dir.join("vmlinuz"))?;
        let root = dir.join("root");
        fs::create_dir(&root)?;
        fs::copy(&busybox, root.join("busybox"))?;
        fs::write(root.join("init"), INIT)?;
        fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
        for module in MODULES {
            let name = Path::new(module).file_stem().context("a module without a name")?;
            unpack(&modules.join(module), &root.join(name))?;
        }
        let pack = "cd \"$1\" && find . | \"$2\" cpio -o -H newc >\"$3\"";
        host("sh").args(["-c", pack, "sh"]).arg(&root).arg(&busybox).arg(dir.join("initrd")).ok()?;
        cache::remove(&dir.join("extracted"))
    })
}

fn unpack(from: &Path, to: &PathBuf) -> Result<()> {
    host("sh").args(["-c", "xz -dc \"$1\" >\"$2\"", "sh"]).arg(from).arg(to).ok()?;
    Ok(())
}
