//! Waiting for builds, and ending what serves connections.
//!
//! Nix's unit has `KillMode=process`, so that a restarted daemon does not kill builds: stopping it leaves a process
//! for each connection, and their builders.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Host;
use super::account::read_accounts;
use crate::facts;
use crate::remains::open_below;
use crate::system::pause::Pause;
use crate::types::parse_subid_file;

/// How long a connection without a build may live on before it is closed.
const IDLE_GRACE: Duration = Duration::from_secs(10);
/// How long a process that was asked to end may take.
const KILL_GRACE: Duration = Duration::from_secs(5);
/// The longest pause between two looks.
const POLL: Duration = Duration::from_millis(200);
/// Where the database and its locks lie.
const DATABASE: &str = "/nix/var/nix/db";
/// What serves connections, by the name of the program.
const SERVERS: [&str; 1] = ["nix-daemon"];

/// Who runs Nix.
pub struct Processes<'a> {
    /// Uids that builds run under.
    pub build_uids: &'a [u32],
    /// Uids that the daemon runs under: others may run a `nix-daemon --stdio` of their own.
    pub daemon_uids: &'a [u32],
}

/// What still runs, by process id.
struct Running {
    builds: Vec<i32>,
    servers: Vec<i32>,
}

/// Returns when nothing of Nix runs any more: builds and root's own commands are waited for, connections that build
/// nothing are closed.
///
/// # Errors
/// When builds or commands take longer than `timeout`, when a process does not end, and when the run is to stop.
pub fn drain(host: &Host<'_>, processes: &Processes<'_>, timeout: Duration) -> Result<()> {
    let start = Instant::now();
    let mut idle_since = start;
    let mut pause = Pause::up_to(POLL);
    loop {
        host.check_cancelled()?;
        let running = processes.running();
        if running.builds.is_empty() && running.servers.is_empty() {
            let Some(holder) = database_holder()? else { return Ok(()) };
            if start.elapsed() >= timeout {
                bail!(
                    "{holder} still has Nix's database open after {} s: end it, and try again",
                    timeout.as_secs()
                );
            }
            host.observer.advance(
                start.elapsed().as_secs(),
                timeout.as_secs(),
                "s waiting for commands that work without a daemon",
            );
        } else if !running.builds.is_empty() {
            idle_since = Instant::now();
            if start.elapsed() >= timeout {
                bail!(
                    "{} build processes still run after {} s: wait for them, or give them longer with --drain-timeout",
                    running.builds.len(),
                    timeout.as_secs()
                );
            }
            host.observer.advance(start.elapsed().as_secs(), timeout.as_secs(), "s waiting for builds");
        } else if idle_since.elapsed() >= IDLE_GRACE {
            host.observer.note(&format!("closing {} connections that build nothing", running.servers.len()));
            return processes.end(&running.servers);
        }
        pause.wait();
    }
}

/// Somebody who works on the store without a daemon: root's own `nix`, which opens the database itself.
fn database_holder() -> Result<Option<String>> {
    let words = |pid: i32, command: &str| format!("process {pid} ({command})");
    if facts::macos::is_here() {
        let holders = open_below("/nix", DATABASE)?;
        return Ok(holders.first().map(|holder| words(holder.pid, &holder.command)));
    }
    let has_database = |pid: i32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|file| file.starts_with(DATABASE))
    };
    let all = facts::running_processes();
    let found = all.into_iter().find(|process| !process.in_container && has_database(process.pid));
    Ok(found.map(|process| words(process.pid, &process.shown())))
}

impl Processes<'_> {
    fn running(&self) -> Running {
        let mut running = Running { builds: Vec::new(), servers: Vec::new() };
        for process in facts::running_processes().into_iter().filter(|process| !process.in_container) {
            if self.build_uids.contains(&process.uid) {
                running.builds.push(process.pid);
            } else if self.daemon_uids.contains(&process.uid) && SERVERS.contains(&process.program.as_str()) {
                running.servers.push(process.pid);
            }
        }
        running
    }

    fn end(&self, servers: &[i32]) -> Result<()> {
        let start = Instant::now();
        let mut left = servers.to_vec();
        let mut signal = Signal::SIGTERM;
        let mut pause = Pause::up_to(POLL);
        while start.elapsed() < 2 * KILL_GRACE {
            // Those that run now, looked at once more: a process id may have gone to somebody else.
            left = self.running().servers;
            if left.is_empty() {
                return Ok(());
            }
            if start.elapsed() >= KILL_GRACE {
                signal = Signal::SIGKILL;
            }
            for pid in &left {
                // One that ended meanwhile is what is wanted.
                let _ = kill(Pid::from_raw(*pid), signal);
            }
            pause.wait();
        }
        bail!("the daemon's processes {left:?} do not end: end them, and try again")
    }
}

/// Ends every process of a uid that is the daemon's own, at once.
///
/// # Errors
/// When some do not end.
pub fn end_all_of(host: &Host<'_>, uid: u32) -> Result<()> {
    end_all(host, &format!("uid {uid}"), |other| other == uid)
}

/// The same of `user`, whose uid this is, and of the subordinate uids that `subuid` (`/etc/subuid`) gives to it: in a namespace of its own
/// a process has one of those, and can have the user's again whenever it likes.
///
/// # Errors
/// When some do not end, or the file cannot be read.
pub fn end_daemons(host: &Host<'_>, user: &str, uid: u32, subuid: &Path) -> Result<()> {
    let text = read_accounts(subuid)?;
    let number = uid.to_string();
    let ours =
        parse_subid_file(&text).into_iter().filter(|entry| entry.owner == user || entry.owner == number);
    let ranges: Vec<_> = ours.map(|entry| entry.range).collect();
    end_all(host, &format!("uid {uid} and its subuids"), |other| {
        other == uid || ranges.iter().any(|range| range.contains(other))
    })
}

fn end_all(host: &Host<'_>, whose: &str, is_theirs: impl Fn(u32) -> bool) -> Result<()> {
    let start = Instant::now();
    let mut told = false;
    let mut pause = Pause::up_to(POLL);
    loop {
        let all = facts::running_processes().into_iter();
        let left: Vec<_> =
            all.filter(|process| process.has_uid_of_this_machine() && process.has_uid(&is_theirs)).collect();
        let Some(first) = left.first() else { return Ok(()) };
        if start.elapsed() >= 2 * KILL_GRACE {
            bail!(
                "{} processes of {whose} do not end, process {} ({}) among them: end them, and try again",
                left.len(),
                first.pid,
                first.shown()
            );
        }
        if !told {
            host.observer.note(&format!("ending {} processes of {whose}", left.len()));
            told = true;
        }
        // Stopped first, so that none can start another while the rest are ended.
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            for process in &left {
                // One that ended meanwhile is what is wanted.
                let _ = kill(Pid::from_raw(process.pid), signal);
            }
        }
        pause.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::thread;

    use super::super::test_host::host;
    use super::*;

    /// A uid that no account has.
    const BUILDER: u32 = 3_999_999_999;

    #[test]
    fn a_build_that_ends_in_time_is_waited_for_and_one_that_does_not_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let processes = Processes { build_uids: &[BUILDER], daemon_uids: &[BUILDER] };
        let mut build = Command::new("sleep").arg("3").uid(BUILDER).spawn().unwrap();
        let error = drain(&host(dir.path()), &processes, Duration::ZERO).unwrap_err().to_string();
        assert!(
            error.contains("1 build processes still run") && error.contains("--drain-timeout"),
            "{error}"
        );
        assert!(build.try_wait().unwrap().is_none(), "the build was not touched");
        let waiter = thread::spawn(move || build.wait());
        drain(&host(dir.path()), &processes, Duration::from_secs(60)).unwrap();
        assert!(waiter.join().unwrap().unwrap().success(), "it ended by itself");
    }

    /// Who went into a namespace of his own has another uid, which is the daemon's as well.
    #[test]
    fn a_daemon_is_also_what_runs_under_its_range() {
        let dir = tempfile::tempdir().unwrap();
        let subuid = dir.path().join("subuid");
        fs::write(&subuid, "other:3999999900:5\nnixx:3999999910:5\n3999999950:3999999920:5\n").unwrap();
        let run = |uid: u32| Command::new("sleep").arg("30").uid(uid).spawn().unwrap();
        let mut others = run(3_999_999_902);
        let mut ours = [3_999_999_950, 3_999_999_914, 3_999_999_920].map(run);
        end_daemons(&host(dir.path()), "nixx", 3_999_999_950, &subuid).unwrap();
        assert!(ours.iter_mut().all(|process| process.try_wait().unwrap().is_some()));
        assert!(others.try_wait().unwrap().is_none());
        others.kill().unwrap();
        others.wait().unwrap();
    }
}
