//! Processes, from ps(1): the kernel's own calls would need Apple's frameworks to link against.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::RawProcess;
use crate::system::command;

/// Every process of this machine but this one; none when ps cannot be run.
#[cfg_attr(target_os = "linux", allow(dead_code))]
pub fn running() -> Vec<RawProcess> {
    let ask = |columns: &str| command::run("ps", &["-axww", "-o", columns]).unwrap_or_default();
    let me = std::process::id().cast_signed();
    let all = parse(&ask("pid=,ppid=,uid=,etime=,args="), &ask("pid=,comm="));
    all.into_iter().filter(|process| process.pid != me).collect()
}

/// `processes` has a line a process: its number, its parent's, its effective uid, its age, its words. `programs` has its number and the
/// path of what it executes, which may hold spaces.
fn parse(processes: &str, programs: &str) -> Vec<RawProcess> {
    let program = |line: &str| {
        let (pid, path) = line.trim().split_once(char::is_whitespace)?;
        Some((pid.parse().ok()?, base(path.trim())))
    };
    let programs: BTreeMap<i32, String> = programs.lines().filter_map(program).collect();
    let process = |line: &str| {
        let mut words = line.split_whitespace();
        let (pid, parent) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let (uid, age_seconds) = (id(words.next()?)?, seconds(words.next()?)?);
        let command: Vec<String> = words.map(str::to_owned).collect();
        let executed = programs.get(&pid).cloned().unwrap_or_default();
        // All of Nix's programs are links to one file; the first word says which.
        let called = command.first().map(|word| base(word)).unwrap_or_default();
        let program = if executed.is_empty() || executed == "nix" { called } else { executed };
        Some(RawProcess {
            pid,
            parent,
            uid,
            program,
            command,
            age_seconds,
            in_container: false,
            in_users_container: false,
        })
    };
    processes.lines().filter_map(process).collect()
}

fn base(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// `nobody` has the uid -2, which is 2^32 - 2 for the kernel.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().or_else(|| text.parse::<i32>().ok().map(i32::cast_unsigned))
}

/// Seconds of `[[days-]hours:]minutes:seconds`.
fn seconds(text: &str) -> Option<u64> {
    let (days, clock) = text.split_once('-').unwrap_or(("0", text));
    let days: u64 = days.parse().ok()?;
    let parts = clock.split(':').map(|part| part.parse::<u64>().ok()).collect::<Option<Vec<_>>>()?;
    Some(days * 86_400 + parts.into_iter().fold(0, |sum, part| sum * 60 + part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ps_writes_is_read() {
        let processes = "    1     0     0 02-03:04:05 /sbin/launchd\n  412     1     0    10:00 nix-daemon 501\n\
                         77 1 -2 00:03 /Applications/A B.app/c --x\n half a line\n";
        let programs = "    1 /sbin/launchd\n  412 /nix/store/x/bin/nix\n   77 /Applications/A B.app/c\n";
        let all = parse(processes, programs);
        let seen: Vec<_> = all
            .iter()
            .map(|process| (process.pid, process.uid, process.program.as_str(), process.age_seconds))
            .collect();
        assert_eq!(
            seen,
            [(1, 0, "launchd", 183_845), (412, 0, "nix-daemon", 600), (77, 4_294_967_294, "c", 3)]
        );
        assert_eq!(all[1].command, ["nix-daemon", "501"]);
    }

    #[test]
    fn this_machines_ps_is_read() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let pid = child.id().cast_signed();
        let found = running().into_iter().find(|process| process.pid == pid).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((found.program.as_str(), found.uid), ("sleep", nix::unistd::geteuid().as_raw()));
        assert_eq!(found.parent, std::process::id().cast_signed());
    }
}
