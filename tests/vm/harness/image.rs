//! Base trees: Debian with systemd, with and without Debian's Nix.

use super::cache::{self, Cached};
use super::exec::{self, host};
use anyhow::{Context, Result, ensure};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SUITE: &str = "forky";
/// With Nix 2.26.
const OLD_SUITE: &str = "trixie";
const MIRROR: &str = "http://deb.debian.org/debian";
/// Without Nix. bash-static is what Debian's Nix, also when it is moved elsewhere, shows its builds as `/bin/sh`; sshd is a remote
/// builder's.
const PACKAGES: &str = "systemd-sysv,dbus,udev,passwd,procps,strace,acl,attr,sqlite3,sudo,libpam-systemd,iproute2,\
                        ca-certificates,busybox-static,bash-static,openssh-client,openssh-server,apparmor,\
                        curl";
/// Debian's Nix with its daemon.
const NIX_PACKAGES: &str = "nix-bin,nix-setup-systemd";

/// A third of all files, which no test reads and every test would copy and compare.
const UNREAD: [&str; 3] = ["usr/share/doc", "usr/share/man", "usr/share/locale"];

/// Timers that would change files in the middle of a comparison, and what only slows a boot.
const UNWANTED_UNITS: [&str; 7] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "fstrim.timer",
    "apparmor.service",
    "ssh.service",
    "ssh.socket",
];

/// A tree with Debian's `nix-bin` and `nix-setup-systemd`.
pub fn with_debian_nix() -> Result<Cached> {
    base("base-debian", &format!("{PACKAGES},{NIX_PACKAGES}"), SUITE)
}

/// The same of Debian 13, whose Nix is too old to ask a root scanner.
pub fn with_old_nix() -> Result<Cached> {
    base("base-old", &format!("{PACKAGES},{NIX_PACKAGES}"), OLD_SUITE)
}

/// A tree without any Nix.
pub fn without_nix() -> Result<Cached> {
    base("base-plain", PACKAGES, SUITE)
}

/// Fails when the host lacks a program, and says which Debian packages have them.
pub fn need_host_programs(programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<_> = programs.iter().filter(|(program, _)| !exec::on_host(program)).collect();
    ensure!(
        missing.is_empty(),
        "tests on real machines need {}; install with: apt-get install -y {}",
        missing.iter().map(|(program, _)| *program).collect::<Vec<_>>().join(", "),
        missing.iter().map(|(_, package)| *package).collect::<Vec<_>>().join(" ")
    );
    Ok(())
}

/// Unpacks Debian's cloud kernel into `dir/extracted`; the directory with its `vmlinuz` and modules.
pub fn cloud_kernel(dir: &Path) -> Result<PathBuf> {
    let tree = dir.join("extracted");
    mmdebstrap("extract", "linux-image-cloud-amd64", SUITE, &tree)?;
    let versions: Vec<_> =
        std::fs::read_dir(tree.join("usr/lib/modules"))?.collect::<std::io::Result<_>>()?;
    let kernel = versions.into_iter().map(|entry| entry.path()).find(|path| path.join("vmlinuz").exists());
    kernel.context("no kernel in linux-image-cloud-amd64")
}

fn base(kind: &str, packages: &str, suite: &str) -> Result<Cached> {
    cache::tree(kind, &[packages, suite, include_str!("image.rs")], |dir| {
        let tree = dir.join("tree");
        mmdebstrap("minbase", packages, suite, &tree)?;
        // mmdebstrap copies these from the host.
        std::fs::write(tree.join("etc/hostname"), "machine\n")?;
        std::fs::write(tree.join("etc/resolv.conf"), "")?;
        for unread in UNREAD {
            cache::remove(&tree.join(unread))?;
        }
        mask(&tree, &UNWANTED_UNITS)
    })
}

fn mmdebstrap(variant: &str, packages: &str, suite: &str, tree: &Path) -> Result<()> {
    need_host_programs(&[("mmdebstrap", "mmdebstrap"), ("tar", "tar")])?;
    let tar = tree.with_extension("tar");
    host("mmdebstrap")
        .arg(format!("--variant={variant}"))
        // The suite moves; a mirror may be older than its Valid-Until.
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
        .arg(format!("--include={packages}"))
        .arg(suite)
        .arg(&tar)
        .arg(MIRROR)
        .timeout(Duration::from_secs(900))
        .ok()?;
    std::fs::create_dir(tree)?;
    host("tar").arg("-C").arg(tree).arg("-xf").arg(&tar).ok()?;
    Ok(std::fs::remove_file(&tar)?)
}

fn mask(tree: &Path, units: &[&str]) -> Result<()> {
    for unit in units {
        symlink("/dev/null", tree.join("etc/systemd/system").join(unit))?;
    }
    Ok(())
}
