//! The daemon sees the directories that everybody sees.
//!
//! A daemon that looks for GC roots deletes links whose target it sees to be absent (`LocalStore::findRoots`, "removing
//! stale link"). So with a private `/tmp`, or with homes hidden by a setting of its unit, it would delete users' roots the
//! first time it is asked. This check asks nothing of the daemon: it compares mounts.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::daemon_uid::server_of;
use super::{CheckError, Outcome, Target};
use crate::daemon::Connection;
use crate::system::{mounts, text};

const REMEDY: &str = "take ProtectHome=, PrivateTmp=, TemporaryFileSystem= and their kin out of the drop-ins of \
                      nix-daemon-gate.service (systemctl cat nix-daemon-gate.service)";
/// Where the gate and systemd mount directories of their own, and where no root can lie.
const OWN: [&str; 5] = ["/dev", "/proc", "/sys", "/run/systemd", "/run/credentials"];

pub(super) fn check(target: &Target) -> Result<Outcome, CheckError> {
    let connection = Connection::open(&target.socket)?;
    let server = server_of(&connection)?;
    let hidden = hidden(server.pid)?;
    let complaints: Vec<_> =
        hidden.iter().map(|path| format!("{} is another directory for it", text::path(path))).collect();
    Ok(Outcome::unless(
        &complaints,
        "every mount that it has shows what the host has there".to_owned(),
        REMEDY,
    ))
}

/// Mount points of the process below which it sees something else than we do.
fn hidden(pid: i32) -> Result<Vec<PathBuf>, CheckError> {
    let table = PathBuf::from(format!("/proc/{pid}/mountinfo"));
    let text = fs::read_to_string(&table).map_err(CheckError::io("cannot read", &table))?;
    let mut hidden: Vec<_> =
        mounts::points(&text).filter(|point| !is_own(point) && differs(pid, point)).collect();
    hidden.sort();
    hidden.dedup();
    Ok(hidden)
}

fn is_own(point: &Path) -> bool {
    OWN.iter().any(|own| point.starts_with(own))
}

fn differs(pid: i32, point: &Path) -> bool {
    // Files too are covered by the gate (accounts, ssh's configuration); no root lies below one.
    let directory = |path: &Path| fs::symlink_metadata(path).ok().filter(fs::Metadata::is_dir);
    let identity = |path: &Path| directory(path).map(|metadata| (metadata.dev(), metadata.ino()));
    let seen = PathBuf::from(format!("/proc/{pid}/root")).join(point.strip_prefix("/").unwrap_or(point));
    // What it has and we have not hides nothing of ours.
    identity(point).is_some_and(|ours| identity(&seen) != Some(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_view_hides_nothing_from_us() {
        let pid = std::process::id().cast_signed();
        assert_eq!(hidden(pid).unwrap(), Vec::<PathBuf>::new());
    }
}
