//! What an installer of Nix left on a Mac besides files: jobs, a volume, and what mounts it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::holders::STOPPED;
use super::{Holder, Remains};
use crate::facts::macos::{DAEMON, DETERMINATE_DAEMON, DETERMINATE_MOUNTER, HOOK, KEYCHAIN, MOUNTER, Mac};
use crate::facts::{Facts, RawProcess, running_processes};
use crate::platform::keychain::Item;
use crate::platform::launchd;
use crate::system::command;
use crate::system::text::one_line;

/// Jobs of installers and our own (for when no journal tells of them), in the order in which they are stopped: what needs the volume before what mounts it.
const JOBS: [&str; 7] =
    [DAEMON, DETERMINATE_DAEMON, HOOK, launchd::BROKER, launchd::ROOT_SCAN, MOUNTER, DETERMINATE_MOUNTER];
/// How far back is looked for the job that started a process.
const GENERATIONS: usize = 64;
/// What has to go from a Mac.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfMac {
    /// launchd's jobs, by label and property list.
    pub jobs: Vec<Job>,
    /// Lines of files that others write to as well.
    pub lines: Vec<Lines>,
    /// The volume, when Nix has one of its own.
    pub volume: Option<Volume>,
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its label.
    pub label: String,
    /// Its property list.
    pub path: String,
}

/// Lines of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// The file.
    pub path: String,
    /// The lines.
    pub lines: Vec<String>,
}

/// A volume, as the action that deletes one wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Its UUID.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// Its device.
    pub device: String,
    /// The keychain's item with its password, if there is one.
    pub items: Vec<Item>,
}

/// Adds what is there.
pub(super) fn find(facts: &Facts, mac: &Mac, remains: &mut Remains) {
    let mut found = OfMac::default();
    for label in JOBS {
        if let Some(job) = mac.job(label) {
            let path = job.path.to_string_lossy().into_owned();
            remains.files.push(job.path.clone());
            found.jobs.push(Job { label: job.label.clone(), path });
        }
    }
    remains.files.sort();
    for job in mac.jobs.iter().filter(|job| !JOBS.contains(&job.label.as_str())) {
        remains.stays.push(format!("{}: it names Nix, and is not an installer's", job.path.display()));
    }
    if let Some(fstab) = &mac.fstab {
        found.lines.push(Lines { path: "/etc/fstab".to_owned(), lines: vec![fstab.line.clone()] });
    }
    if mac.synthetic.as_ref().is_some_and(|line| line.target.is_none()) {
        found.lines.push(Lines { path: "/etc/synthetic.conf".to_owned(), lines: vec!["nix".to_owned()] });
    }
    found.volume = mac.volume.as_ref().or(mac.unmounted.as_ref()).map(|volume| Volume {
        uuid: volume.uuid.clone(),
        name: volume.name.clone(),
        device: volume.device.clone(),
        items: volume
            .keychain_item
            .iter()
            .map(|item| Item {
                keychain: KEYCHAIN.to_owned(),
                account: item.account.clone(),
                service: item.service.clone(),
            })
            .collect(),
    });
    if let Some(other) = &mac.elsewhere {
        remains.stays.push(format!(
            "the volume {} ({}, {}): it is on another disk than the system, or mounted elsewhere, so it is not this Mac's",
            other.name, other.device, other.uuid
        ));
    }
    // The directory /nix is there until the next start of the machine, whatever is on it.
    remains.store = found.volume.is_some() || facts.store.is_some();
    remains.mac = Some(found);
}

impl OfMac {
    /// The job that mounts the volume.
    pub fn mounter(&self) -> Option<&Job> {
        self.jobs.iter().find(|job| [MOUNTER, DETERMINATE_MOUNTER].contains(&job.label.as_str()))
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.lines.is_empty() && self.volume.is_none()
    }
}

/// Processes that use the volume at `/nix`, without those that end with jobs of Nix's: these themselves and what they started, builds among
/// it, which are waited for; and what root or a store's owner runs under the name of Nix's own.
///
/// What lsof calls a process does not tell: the kernel names a daemon after the file that its link leads to, `nix`.
///
/// # Errors
/// When lsof cannot be run.
pub fn users_of_the_volume(facts: &Facts, mac: &Mac) -> Result<Vec<Holder>> {
    let jobs: Vec<_> = JOBS.iter().filter_map(|label| mac.job(label)).collect();
    let accounts = jobs.iter().filter_map(|job| job.user.as_ref());
    let owners = accounts.filter_map(|name| facts.users.iter().find(|user| user.name == *name));
    let running = running_processes().into_iter().map(|process| (process.pid, process));
    let ending = Ending {
        pids: jobs.iter().filter_map(|job| job.pid).collect(),
        uids: owners.map(|user| user.uid).chain([0]).collect(),
        running: running.collect(),
    };
    let mut holders = open_below("/nix", "/nix")?;
    holders.retain(|holder| !ending.is_with(holder.pid));
    Ok(holders)
}

/// What ends when jobs of Nix's are unloaded.
struct Ending {
    /// Their processes, as launchd tells.
    pids: Vec<i32>,
    /// Whom daemons of Nix run as.
    uids: Vec<u32>,
    /// All processes.
    running: BTreeMap<i32, RawProcess>,
}

impl Ending {
    /// Whether this process ends with them.
    fn is_with(&self, pid: i32) -> bool {
        let parent = |pid: &i32| self.running.get(pid).map(|process| process.parent);
        // A list that changes while it is read may have a circle.
        let mut line = std::iter::successors(Some(pid), parent).take(GENERATIONS);
        let is_daemon = |process: &RawProcess| {
            self.uids.contains(&process.uid) && STOPPED.contains(&process.program.as_str())
        };
        line.any(|pid| self.pids.contains(&pid)) || self.running.get(&pid).is_some_and(is_daemon)
    }
}

/// Processes that have a file below `directory` open, on the file system that is mounted at `mount_point`, as lsof(8) tells.
///
/// # Errors
/// When lsof cannot be run.
pub fn open_below(mount_point: &str, directory: &str) -> Result<Vec<Holder>> {
    let output = command::output("lsof", &["-F", "pcn", "+f", "--", mount_point])
        .context("cannot ask who uses the volume")?;
    let mut holders: Vec<Holder> = Vec::new();
    // A line for each field, by its first letter: the process, then its command, then the names of its files.
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some((field, value)) = line.split_at_checked(1) else { continue };
        match (field, holders.last_mut()) {
            ("p", _) => {
                let Ok(pid) = value.parse() else { continue };
                holders.push(Holder { pid, command: String::new(), uses: String::new() });
            }
            ("c", Some(holder)) => holder.command = one_line(value),
            ("n", Some(holder)) if holder.uses.is_empty() && value.starts_with(directory) => {
                holder.uses = one_line(value);
            }
            _ => {}
        }
    }
    holders.retain(|holder| !holder.uses.is_empty());
    Ok(holders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_with_a_job_is_told_by_its_line_or_by_name_and_owner() {
        let process = |pid, parent, uid, program: &str| {
            let process = RawProcess {
                pid,
                parent,
                uid,
                program: program.to_owned(),
                command: Vec::new(),
                age_seconds: 1,
                in_container: false,
                in_users_container: false,
            };
            (pid, process)
        };
        let ending = Ending {
            pids: vec![412],
            uids: vec![0, 400],
            running: BTreeMap::from([
                process(412, 1, 0, "nix-daemon"),
                process(413, 412, 0, "nix"),
                process(414, 413, 351, "bash"),
                process(500, 1, 400, "nix-daemon-gate"),
                process(501, 1, 501, "nix-daemon"),
                process(502, 1, 0, "zsh"),
                process(503, 504, 501, "a"),
                process(504, 503, 501, "b"),
            ]),
        };
        let found: Vec<_> = [412, 413, 414, 500, 501, 502, 503, 9999]
            .into_iter()
            .filter(|pid| ending.is_with(*pid))
            .collect();
        assert_eq!(
            found,
            [412, 413, 414, 500],
            "the job, a worker, its build, a daemon without a job; nobody else's"
        );
    }
}
