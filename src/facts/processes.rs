//! Processes of Nix.

use std::collections::BTreeSet;

use super::reader::Reader;
use super::{BuildUsers, ConfFile, NixProcess, ProcessRole, nix_conf};
use crate::system::text::one_line;
use crate::types::{SubidEntry, SubidRange};

/// Longest command line that is shown, in characters.
const COMMAND_LENGTH: usize = 200;
/// Programs of Nix that a user starts.
const CLIENTS: [&str; 12] = [
    "nix",
    "nix-build",
    "nix-channel",
    "nix-collect-garbage",
    "nix-copy-closure",
    "nix-env",
    "nix-hash",
    "nix-instantiate",
    "nix-prefetch-url",
    "nix-shell",
    "nix-store",
    "nixos-rebuild",
];
/// Programs that serve.
const DAEMONS: [&str; 3] = ["nix-daemon", "nix-daemon-gate", "determinate-nixd"];

/// A process as the kernel tells of it.
#[derive(Clone, Debug)]
pub struct RawProcess {
    /// Process id.
    pub pid: i32,
    /// Its parent, 0 for none.
    pub parent: i32,
    /// Effective uid.
    pub uid: u32,
    /// Name of its executable, as far as it may be read; else of its command.
    pub program: String,
    /// Words of its command line.
    pub command: Vec<String>,
    /// Seconds since it started.
    pub age_seconds: u64,
    /// Whether it belongs to a container on this machine, whose Nix is another one.
    pub in_container: bool,
    /// Whether that container, if it is one, is a user's own: what is below his control group he names as he likes.
    pub in_users_container: bool,
}

impl RawProcess {
    /// Whether its uid is one of this machine's, which in a container may be somebody else. A user's own container has uids of his range, and
    /// whatever else is in its control group he put there.
    pub fn has_uid_of_this_machine(&self) -> bool {
        !self.in_container || self.in_users_container
    }

    /// Whether one of its uids is such a one: the effective, or another that it can make that at any time, the real and the saved one.
    pub fn has_uid(&self, is_such: impl Fn(u32) -> bool) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        // proc_pid_status(5); not on a Mac.
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        is_such(self.uid) || uids.split_whitespace().filter_map(|uid| uid.parse().ok()).any(is_such)
    }

    /// Its command line for people: whoever started it chose the words.
    pub fn shown(&self) -> String {
        one_line(&self.command.join(" ")).chars().take(COMMAND_LENGTH).collect()
    }
}

pub(crate) fn gather(
    reader: &Reader<'_>,
    build_users: &BuildUsers,
    subuid: &[SubidEntry],
    conf: &[ConfFile],
    daemon_user: Option<&str>,
) -> Vec<NixProcess> {
    let live = reader.machine.is_live().then(running);
    let raw = live.as_deref().unwrap_or_else(|| reader.machine.recorded_processes());
    let owner = daemon_user.unwrap_or("nix");
    let uid = reader.accounts.uid(owner).map(|uid| uid.to_string());
    let ours = |entry: &&SubidEntry| entry.owner == owner || Some(&entry.owner) == uid.as_ref();
    let delegated = subuid.iter().filter(ours).map(|entry| entry.range);
    let ranges: Vec<_> = delegated.chain(auto_allocated(conf)).collect();
    let mut found: Vec<_> =
        raw.iter().filter_map(|process| classify(process, raw, build_users, &ranges)).collect();
    found.sort_by_key(|process| process.pid);
    found
}

/// The ids that builds take when `nix.conf` lets Nix choose them. Not otherwise: they may be a container's.
fn auto_allocated(conf: &[ConfFile]) -> Option<SubidRange> {
    let setting = |name| nix_conf::effective(conf, name);
    let number = |name, default| setting(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let SubidRange { start, count } = SubidRange::NIX_DEFAULT;
    let on = setting("auto-allocate-uids").is_some_and(|value| value == "true");
    on.then(|| SubidRange::new(number("start-id", start), number("id-count", count))).flatten()
}

#[cfg(not(target_os = "linux"))]
pub use super::macos::processes::running;

/// Every process of this machine but this one.
#[cfg(target_os = "linux")]
pub fn running() -> Vec<RawProcess> {
    use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};
    let mut system = System::new();
    let kind = ProcessRefreshKind::nothing()
        .with_exe(UpdateKind::Always)
        .with_cmd(UpdateKind::Always)
        .with_user(UpdateKind::Always)
        .without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
    let me = Pid::from_u32(std::process::id());
    system.processes().iter().filter(|(pid, _)| **pid != me).filter_map(|(_, process)| raw(process)).collect()
}

#[cfg(target_os = "linux")]
fn raw(process: &sysinfo::Process) -> Option<RawProcess> {
    // One that has ended, and waits for its parent to look. Its first thread alone may end, too, which looks the same from here.
    let threads = || std::fs::read_dir(format!("/proc/{}/task", process.pid())).map_or(0, Iterator::count);
    if process.status() == sysinfo::ProcessStatus::Zombie && threads() <= 1 {
        return None;
    }
    let uid = process.effective_user_id().or_else(|| process.user_id())?;
    let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).unwrap_or_default();
    let in_container = names_container(&cgroup);
    Some(RawProcess {
        pid: process.pid().as_u32().cast_signed(),
        parent: process.parent().map_or(0, |pid| pid.as_u32().cast_signed()),
        uid: **uid,
        program: program_name(process),
        command: process.cmd().iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        age_seconds: process.run_time(),
        in_container,
        in_users_container: in_container && is_users(&cgroup),
    })
}

/// Whether a control group is one that container managers make. The machine's own daemon lies in `system.slice`.
#[cfg(target_os = "linux")]
fn names_container(cgroup: &str) -> bool {
    let starts = ["docker", "libpod", "lxc", "kubepods", "machine.slice", "cri-containerd", "crio-"];
    let path = cgroup.trim().rsplit(':').next().unwrap_or_default();
    path.split('/')
        .any(|part| starts.iter().any(|start| part.starts_with(start)) && !part.ends_with(".service"))
}

/// Whether a control group is below that of somebody who logged in.
#[cfg(target_os = "linux")]
fn is_users(cgroup: &str) -> bool {
    cgroup.trim().rsplit(':').next().unwrap_or_default().starts_with("/user.slice/")
}

/// The executable's name. All of Nix's programs are links to one file, so for that one the first word of the command line
/// says which; it does not for others, because anybody may call himself `nix-daemon`.
#[cfg(target_os = "linux")]
fn program_name(process: &sysinfo::Process) -> String {
    let base = |path: &std::path::Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let exe = process.exe().and_then(base).unwrap_or_default();
    let called = process.cmd().first().and_then(|word| base(std::path::Path::new(word)));
    // Who is not root may not see another's executable.
    let is_nix = exe.is_empty() || exe.trim_end_matches(" (deleted)") == "nix";
    if is_nix { called.unwrap_or_else(|| process.name().to_string_lossy().into_owned()) } else { exe }
}

fn classify(
    process: &RawProcess,
    all: &[RawProcess],
    build_users: &BuildUsers,
    ranges: &[SubidRange],
) -> Option<NixProcess> {
    if process.in_container {
        return None;
    }
    let is_daemon = |program: &str| DAEMONS.contains(&program);
    let builder = build_users.members.iter().any(|(_, uid)| *uid == process.uid)
        || ranges.iter().any(|range| range.contains(process.uid));
    let role = if builder {
        ProcessRole::Build
    } else if is_daemon(&process.program) {
        // A child that serves a connection puts the peer's pid into its command line; it outlives a stopped daemon.
        let peer = process.command.get(1).is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
        let serves = peer || process.command.iter().any(|word| word == "--stdio");
        let below = below_daemon(process, all, &is_daemon);
        if serves || below { ProcessRole::Worker } else { ProcessRole::Daemon }
    } else if CLIENTS.contains(&process.program.as_str()) {
        if below_daemon(process, all, &is_daemon) { ProcessRole::Worker } else { ProcessRole::Client }
    } else {
        return None;
    };
    let command = process.shown();
    let age_seconds = process.age_seconds;
    Some(NixProcess { pid: process.pid, uid: process.uid, role, command, age_seconds })
}

/// Whether an ancestor is a daemon. A loop cannot be: every pid is looked at once.
fn below_daemon(process: &RawProcess, all: &[RawProcess], is_daemon: &dyn Fn(&str) -> bool) -> bool {
    let mut seen = BTreeSet::new();
    let mut parent = process.parent;
    while seen.insert(parent) {
        let Some(above) = all.iter().find(|other| other.pid == parent) else { return false };
        if is_daemon(&above.program) {
            return true;
        }
        parent = above.parent;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, uid: u32, command: &str) -> RawProcess {
        let command: Vec<_> = command.split(' ').map(str::to_owned).collect();
        RawProcess {
            pid,
            parent,
            uid,
            program: command[0].clone(),
            command,
            age_seconds: 5,
            in_container: false,
            in_users_container: false,
        }
    }

    #[test]
    fn roles_follow_uid_and_descent() {
        use ProcessRole::{Build, Client, Daemon, Worker};
        let nixbld = BuildUsers { members: vec![("nixbld1".to_owned(), 30_001)], ..BuildUsers::default() };
        let all = [
            process(1, 0, 0, "systemd"),
            process(10, 1, 0, "nix-daemon --daemon"),
            process(11, 10, 0, "nix-daemon 4711"),
            process(12, 11, 30_001, "bash -e builder.sh"),
            process(13, 12, 872_415_232, "sleep 5"),
            process(15, 1, 0, "nix-daemon 4712"),
            process(14, 1, 990, "nix-daemon --stdio --force-trusted"),
            process(20, 1, 1000, "nix-build x.nix"),
            process(21, 1, 1000, "nixpkgs-fmt x.nix"),
            process(22, 11, 0, "nix __build-remote"),
            RawProcess { in_container: true, ..process(30, 1, 0, "nix-daemon --daemon") },
            RawProcess { in_container: true, ..process(31, 30, 30_001, "make") },
        ];
        let roles: Vec<_> = all
            .iter()
            .filter_map(|one| classify(one, &all, &nixbld, &[SubidRange::NIX_DEFAULT]))
            .map(|one| (one.pid, one.role))
            .collect();
        let expected = [
            (10, Daemon),
            (11, Worker),
            (12, Build),
            (13, Build),
            (15, Worker),
            (14, Worker),
            (20, Client),
            (22, Worker),
        ];
        assert_eq!(roles, expected);
    }

    #[test]
    fn only_the_machines_own_containers_have_other_uids() {
        for (in_container, in_users_container, ours) in
            [(false, false, true), (true, false, false), (true, true, true)]
        {
            let process = RawProcess { in_container, in_users_container, ..process(1, 0, 999, "x") };
            assert_eq!(process.has_uid_of_this_machine(), ours);
        }
    }

    #[test]
    fn containers_are_told_by_their_control_group() {
        let rows = [
            ("0::/system.slice/nix-daemon.service\n", false),
            ("0::/system.slice/docker.service\n", false),
            ("0::/system.slice/docker-4711.scope\n", true),
            ("0::/machine.slice/machine-x.scope/payload/system.slice/nix-daemon.service\n", true),
            ("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-1.scope\n", true),
            ("", false),
        ];
        for (cgroup, container) in rows {
            assert_eq!(names_container(cgroup), container, "{cgroup}");
            assert_eq!(is_users(cgroup), cgroup.contains("libpod"), "{cgroup}");
        }
    }

    #[test]
    fn ids_that_nix_chooses_count_only_when_it_does() {
        let file = |settings: &[(&str, &str)]| ConfFile {
            path: "/etc/nix/nix.conf".into(),
            included_by: None,
            optional: false,
            position: 0,
            settings: Some(
                settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            ),
            uid: 0,
            gid: 0,
            mode: 0o644,
        };
        assert_eq!(auto_allocated(&[file(&[("start-id", "5")])]), None);
        let on = ("auto-allocate-uids", "true");
        assert_eq!(auto_allocated(&[file(&[on])]), Some(SubidRange::NIX_DEFAULT));
        assert_eq!(
            auto_allocated(&[file(&[on, ("start-id", "5"), ("id-count", "9")])]),
            SubidRange::new(5, 9)
        );
    }

    #[test]
    fn a_command_line_cannot_steer_a_terminal() {
        let evil = process(20, 1, 1000, "nix-build \u{1b}]0;pwned\u{7}");
        let seen = classify(&evil, &[], &BuildUsers::default(), &[]).unwrap();
        assert_eq!(seen.command, "nix-build ?]0;pwned?");
    }
}
