//! A machine as a booted `systemd-nspawn` container: real systemd, accounts, mounts and kernel, up in a second.

use super::cgroup::Cgroup;
use super::exec::{self, Limited, host};
use super::image::need_host_programs;
use super::machine::Running;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const BOOT_TIMEOUT: Duration = Duration::from_secs(120);
/// systemd takes SIGRTMIN+4 as "power off" (systemd(1), SIGNALS).
const POWEROFF: &str = "-RTMIN+4";

/// A running container.
#[derive(Debug)]
pub struct Nspawn {
    child: Child,
    /// Process 1 of the container, as the host sees it.
    leader: u32,
    cgroup: Cgroup,
}

/// Boots `tree` and waits until systemd says that it is up. The console goes to `DIR/console.log`, where `DIR` holds
/// the tree.
pub fn boot(tree: &Path, name: &str) -> Result<Nspawn> {
    need_host_programs(&[
        ("systemd-nspawn", "systemd-container"),
        ("nsenter", "util-linux"),
        ("setsid", "util-linux"),
    ])?;
    let console = tree.with_file_name("console.log");
    let cgroup = Cgroup::new(name)?;
    let mut child = start(tree, name, &console, &cgroup)?;
    fs::write(pid_file(tree), child.id().to_string())?;
    let leader = exec::poll(BOOT_TIMEOUT, || match child.try_wait() {
        Ok(None) => leader_of(child.id()).filter(|leader| is_up(*leader)).map(Some),
        _ => Some(None),
    });
    match leader.flatten() {
        Some(leader) => Ok(Nspawn { child, leader, cgroup }),
        None => {
            kill(child.id());
            drop(child.wait());
            cgroup.remove();
            bail!(
                "{name} did not boot; its console said:\n{}",
                fs::read_to_string(&console).unwrap_or_default()
            )
        }
    }
}

/// Ends what an earlier, killed run left behind on this tree.
pub fn kill_leftover(tree: &Path) {
    let Some(pid) = fs::read_to_string(pid_file(tree)).ok().and_then(|text| text.parse().ok()) else {
        return;
    };
    // The number may belong to somebody else by now.
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if String::from_utf8_lossy(&cmdline).contains(&format!("--directory={}", tree.display())) {
        kill(pid);
        exec::poll(Duration::from_secs(10), || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    }
}

impl Running for Nspawn {
    fn command(&self, argv: &[String]) -> Limited {
        host("nsenter").arg("-t").arg(self.leader.to_string()).arg("-a").args(argv)
    }

    fn stop(&mut self) -> Result<()> {
        host("kill").arg(POWEROFF).arg(self.leader.to_string()).ok()?;
        exec::poll(Duration::from_secs(100), || self.child.try_wait().transpose())
            .context("the machine did not power off")??;
        self.cgroup.remove();
        Ok(())
    }

    fn kill(&mut self) {
        kill(self.child.id());
        drop(self.child.wait());
        self.cgroup.remove();
    }

    fn leader(&self) -> Option<u32> {
        Some(self.leader)
    }

    fn enter_hint(&self) -> String {
        format!("nsenter -t {} -a env -i TERM=$TERM bash -l", self.leader)
    }
}

fn start(tree: &Path, name: &str, console: &Path, cgroup: &Cgroup) -> Result<Child> {
    let script = format!("set -e\n{}exec systemd-nspawn \"$@\"", cgroup.enter_script());
    Command::new("sh")
        .args(["-c", &script, "sh"])
        .arg(format!("--directory={}", tree.display()))
        .arg(format!("--machine={name}"))
        .args(["--boot", "--register=no", "--keep-unit", "--console=pipe"])
        // Nothing of the host leaks into the tree, and no test can reach the network.
        .args(["--private-network", "--resolv-conf=off", "--timezone=off", "--link-journal=no"])
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
        .stdin(Stdio::null())
        .stdout(File::create(console)?)
        .stderr(File::options().append(true).open(console)?)
        .process_group(0)
        .spawn()
        .context("cannot start systemd-nspawn")
}

/// nspawn's only lasting child; while it starts there may be another one, which is not up then.
fn leader_of(nspawn: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn is_up(leader: u32) -> bool {
    let asked = host("nsenter")
        .arg("-t")
        .arg(leader.to_string())
        .args(["-a", "systemctl", "is-system-running"])
        .run();
    // "degraded": up, with a failed unit that a scenario may look at.
    asked.is_ok_and(|outcome| matches!(outcome.stdout.trim(), "running" | "degraded"))
}

/// Kills process 1 of the container, which takes every process of it along; nspawn ends by itself then.
fn kill(nspawn: u32) {
    use nix::sys::signal::{Signal, kill};
    let pid = leader_of(nspawn).unwrap_or(nspawn);
    let _ = kill(nix::unistd::Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
}

fn pid_file(tree: &Path) -> PathBuf {
    tree.with_file_name("nspawn.pid")
}
