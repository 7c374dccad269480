//! A control group for every machine.
//!
//! `systemd-nspawn --keep-unit` puts its payload into `payload` below the caller's group. Two machines started from
//! one group would share it, and each systemd would see the other's processes as its own.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The groups of one machine: one in the unified hierarchy, and one in systemd's own where the host still has that.
#[derive(Debug)]
pub struct Cgroup {
    dirs: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes the groups.
    pub fn new(name: &str) -> Result<Cgroup> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let dirs: Vec<_> = mounts.lines().filter_map(hierarchy).map(|mount| mount.join(name)).collect();
        anyhow::ensure!(
            !dirs.is_empty(),
            "no control groups (version 2) mounted on this host: mount cgroup2 first"
        );
        for dir in &dirs {
            fs::create_dir_all(dir)
                .with_context(|| format!("cannot make the control group {}", dir.display()))?;
        }
        Ok(Cgroup { dirs })
    }

    /// Shell lines that move the shell itself into the groups.
    pub fn enter_script(&self) -> String {
        self.dirs.iter().map(|dir| format!("echo $$ >'{}/cgroup.procs'\n", dir.display())).collect()
    }

    /// Removes the groups; their processes must be gone.
    pub fn remove(&self) {
        for dir in &self.dirs {
            remove_tree(dir);
        }
    }
}

/// The mount point, when this mountinfo line is a hierarchy that systemd uses.
fn hierarchy(line: &str) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    let ours = kind.starts_with("cgroup2 ") || (kind.starts_with("cgroup ") && kind.contains("name=systemd"));
    let point = mount.split(' ').nth(4)?;
    ours.then(|| PathBuf::from(point))
}

/// A group is removed with rmdir, children first. One that stays empty hurts nobody.
fn remove_tree(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path());
    }
    drop(fs::remove_dir(dir));
}
