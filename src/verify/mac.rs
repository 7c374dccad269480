//! The live checks on a Mac.
//!
//! No root is planted, and no garbage is collected here: what proves that on Linux was never tried on a Mac. `docs/macos.md` has the commands that a
//! person runs for it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::run::{Check, NOTHING_ROOT_OWNED, ROOT_CLIENT, TRUST_ROOT, TRUST_UNTRUSTED};
use super::{CheckError, Outcome, Target, mac_build, peer};
use crate::daemon::Connection;
use crate::facts::macos::{DAEMON, JOBS};
use crate::facts::{RawProcess, running_processes};
use crate::platform::{launchd, paths};
use crate::types::SubidRange;

/// Labels of the jobs.
const LABELS: [&str; 3] = [launchd::BROKER, launchd::ROOT_SCAN, DAEMON];
/// `nobody`, whose uid is -2.
const NOBODY: u32 = u32::MAX - 1;
const DAEMON_REMEDY: &str = "the property list of org.nixos.nix-daemon must be nix-unroot's: see nix-unroot inspect, and /var/log/nix-unroot";

/// All checks on a Mac, in the order in which they run.
const CHECKS: &[Check] = &[
    Check {
        key: "jobs",
        title: "launchd has the jobs, from property lists that are root's",
        looks_for_roots: false,
        function: jobs,
    },
    Check {
        key: "daemon-uid",
        title: "the daemon runs as the nix user",
        looks_for_roots: false,
        function: daemon_uid,
    },
    Check {
        key: "build-uid",
        title: "a build runs under the uid of a build user",
        looks_for_roots: true,
        function: mac_build::check,
    },
    TRUST_ROOT,
    TRUST_UNTRUSTED,
    NOTHING_ROOT_OWNED,
    ROOT_CLIENT,
];

fn list_of(label: &str) -> PathBuf {
    PathBuf::from(format!("{JOBS}/{label}.plist"))
}

impl Target {
    /// A migrated Mac: uid and gid of the store's owner, the group of build users, and their uids.
    pub fn of_mac(nix_uid: u32, nix_gid: u32, build_gid: u32, builds: SubidRange) -> Self {
        let libexec = PathBuf::from(paths::LIBEXEC_DIR);
        let programs =
            [paths::GATE, paths::ROOT_SCAN, paths::BROKER, "build.sb"].map(|name| libexec.join(name));
        let mut root_files: Vec<_> = programs.into_iter().chain([paths::NIX_CONF.into()]).collect();
        root_files.extend(LABELS.map(list_of));
        Self {
            untrusted_uid: NOBODY,
            conf_files: vec![
                paths::NIX_CONF.into(),
                "/etc/xdg/nix/nix.conf".into(),
                "/var/root/.config/nix/nix.conf".into(),
            ],
            root_files,
            gids: SubidRange { start: build_gid, count: 1 },
            store_owner: (nix_uid, build_gid),
            logs: "see what the jobs say in /var/log/nix-unroot",
            planting_grounds: Vec::new(),
            checks: CHECKS,
            ..Self::new(nix_uid, nix_gid, builds)
        }
    }
}

fn jobs(_: &Target) -> Result<Outcome, CheckError> {
    let failed = |error: anyhow::Error| CheckError::Other(format!("{error:#}"));
    let mut complaints = Vec::new();
    for label in LABELS {
        if !launchd::is_loaded(label).map_err(failed)? {
            complaints.push(format!("launchd does not know {label}"));
        }
        if !launchd::is_enabled(label).map_err(failed)? {
            complaints.push(format!("{label} is disabled"));
        }
        let path = list_of(label);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() && found.uid() == 0 && found.permissions().mode() & 0o022 == 0 => {}
            Ok(_) => complaints.push(format!("{} is not a file that only root may change", path.display())),
            Err(error) => complaints.push(format!("cannot look at {}: {error}", path.display())),
        }
    }
    let remedy = "nix-unroot resume finishes an interrupted migration; launchctl enable and launchctl bootstrap load a job again";
    Ok(Outcome::unless(&complaints, LABELS.join(", "), remedy))
}

fn daemon_uid(target: &Target) -> Result<Outcome, CheckError> {
    let connection = Connection::open(&target.socket)?;
    let deadline = Instant::now() + Duration::from_secs(5);
    // The gate forks for each connection, and holds it twice for a moment.
    let pid = loop {
        match peer::holders(connection.stream()) {
            Ok(holders) if holders.len() == 1 => break Some(holders[0]),
            _ if Instant::now() > deadline => break None,
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let version = connection.nix_version();
    Ok(served_by(&running_processes(), pid, target.nix_uid, version))
}

/// Whom the connection is with: the process that has it, or, where the system names launchd, which made the socket, or nobody, every process that
/// is a daemon of Nix.
fn served_by(processes: &[RawProcess], pid: Option<i32>, nix_uid: u32, version: &str) -> Outcome {
    let is_server = |process: &&RawProcess| match pid {
        Some(pid) => process.pid == pid,
        None => process.program == "nix-daemon",
    };
    let servers: Vec<_> = processes.iter().filter(is_server).collect();
    let named = |process: &&RawProcess| {
        format!("process {} ({}), Nix {version}, has uid {}", process.pid, process.program, process.uid)
    };
    let seen = servers.iter().map(named).collect::<Vec<_>>().join("; ");
    match servers.iter().all(|process| process.uid == nix_uid) {
        _ if servers.is_empty() => {
            Outcome::failed("no process is seen behind the daemon's socket".to_owned(), DAEMON_REMEDY)
        }
        true => Outcome::passed(seen),
        false => Outcome::failed(format!("{seen}, not {nix_uid}"), DAEMON_REMEDY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_daemon_counts_where_the_one_cannot_be_told() {
        let process = |pid, uid, program: &str| RawProcess {
            pid,
            parent: 1,
            uid,
            program: program.to_owned(),
            command: Vec::new(),
            age_seconds: 1,
            in_container: false,
            in_users_container: false,
        };
        let all = [process(5, 400, "nix-daemon"), process(6, 0, "nix-daemon"), process(7, 0, "launchd")];
        let passed = |processes: &[RawProcess], pid| served_by(processes, pid, 400, "2.34.8").passed;
        assert!(passed(&all, Some(5)) && !passed(&all, Some(6)) && !passed(&all, Some(8)));
        assert!(!passed(&all, None), "one of them is root's");
        assert!(passed(&all[..1], None) && !passed(&all[2..], None));
    }
}
