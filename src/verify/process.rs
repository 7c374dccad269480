//! What the host sees of a process.

use std::fs;
use std::path::{Path, PathBuf};

use super::CheckError;
use super::id_map::IdMap;
use crate::system::text::printable;

/// A process as `/proc` shows it to us.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// Real, effective, saved and file-system uid.
    pub(super) uids: Vec<u32>,
    /// The same of its group.
    pub(super) gids: Vec<u32>,
    pub(super) groups: Vec<u32>,
    /// Its effective capabilities, which count in its own user namespace.
    pub(super) capabilities: u64,
    pub(super) unit: Option<String>,
}

impl Process {
    pub(super) fn read(pid: i32) -> Result<Self, CheckError> {
        let path = PathBuf::from(format!("/proc/{pid}/status"));
        let status = fs::read_to_string(&path).map_err(CheckError::io("cannot read", &path))?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let numbers = |name: &str| -> Vec<u32> {
            field(name)
                .unwrap_or_default()
                .split_whitespace()
                .filter_map(|number| number.parse().ok())
                .collect()
        };
        // A capability set that cannot be read counts as full.
        let capabilities =
            field("CapEff").and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(u64::MAX);
        Ok(Self {
            pid,
            uids: numbers("Uid"),
            gids: numbers("Gid"),
            groups: numbers("Groups"),
            capabilities,
            unit: unit_of(pid),
        })
    }

    /// Its namespace of the given kind, as the kernel names it: `user:[4026531837]`.
    pub(super) fn namespace(&self, kind: &str) -> Result<String, CheckError> {
        namespace(&format!("/proc/{}/ns/{kind}", self.pid))
    }

    /// One of its id maps, with ids on the outside as we see them.
    pub(super) fn id_map(&self, name: &str) -> Result<IdMap, CheckError> {
        let path = PathBuf::from(format!("/proc/{}/{name}", self.pid));
        fs::read_to_string(&path)
            .map_err(CheckError::io("cannot read", &path))?
            .parse()
            .map_err(CheckError::Other)
    }

    /// How people know it: `process 45 (nix-daemon-gate.service)`.
    pub(super) fn describe(&self) -> String {
        let unit = self.unit.as_ref().map(|unit| format!(" ({unit})")).unwrap_or_default();
        format!("process {}{unit}", self.pid)
    }
}

/// Our own namespace of the given kind.
pub(super) fn own_namespace(kind: &str) -> Result<String, CheckError> {
    namespace(&format!("/proc/self/ns/{kind}"))
}

fn namespace(path: &str) -> Result<String, CheckError> {
    let path = Path::new(path);
    let link = fs::read_link(path).map_err(CheckError::io("cannot read", path))?;
    Ok(link.to_string_lossy().into_owned())
}

fn unit_of(pid: i32) -> Option<String> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let unit = path.split('/').rfind(|part| part.ends_with(".service"))?;
    Some(printable(unit))
}
