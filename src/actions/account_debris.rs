//! What an account tool leaves beside the account files when it is killed.
//!
//! shadow's tools write `passwd+` and rename it, and hold `passwd.lock`, a link to `passwd.PID` (`lib/commonio.c`). A later
//! tool takes a dead one's lock over, but the other files stay for ever.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, SysconfVar, sysconf};

use super::Host;
use super::edit::{AccountLock, Original, read_or_empty};
use crate::system::files;

const FILES: [&str; 6] = ["passwd", "group", "shadow", "gshadow", "subuid", "subgid"];

/// Removes from `/etc` what tools left that died since this run began, and we when we edited their files. What is older is somebody else's.
///
/// # Errors
/// When an account tool is at work for too long, or something cannot be removed.
pub fn sweep(host: &Host<'_>) -> Result<()> {
    sweep_in(Path::new("/etc"), host)
}

/// Removes the line of `name` from `/etc/FILE` when `/etc/OTHER`, which goes with it, has none: a tool began to make or to remove it, and
/// died between the two. (`userdel` and `groupdel` would take more along: userdel a group of the same name.)
///
/// # Errors
/// When an account tool is at work for too long, or a file cannot be read or written.
pub fn remove_half(file: &str, other: &str, name: &str, host: &Host<'_>) -> Result<()> {
    remove_half_in(Path::new("/etc"), file, other, name, host)
}

fn remove_half_in(directory: &Path, file: &str, other: &str, name: &str, host: &Host<'_>) -> Result<()> {
    let is_its = |line: &str| line.split(':').next() == Some(name);
    let _lock = AccountLock::take()?;
    let (file, other) = (directory.join(file), directory.join(other));
    let text = read_or_empty(&file)?;
    // There may be no shadow files.
    if !other.exists() || read_or_empty(&other)?.lines().any(is_its) || !text.lines().any(is_its) {
        return Ok(());
    }
    let rest: String = text.split_inclusive('\n').filter(|line| !is_its(line)).collect();
    Original::capture(&file, host)?.write(&rest)
}

fn sweep_in(directory: &Path, host: &Host<'_>) -> Result<()> {
    FILES.iter().for_each(|file| files::forget_temporary(&directory.join(file)));
    // A file system that does not keep the time of birth leaves us without a beginning.
    let Ok(began) = fs::metadata(&host.backups).and_then(|made| made.created()) else { return Ok(()) };
    let mut debris = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let entry = entry.with_context(|| format!("cannot read {}", directory.display()))?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(is_debris);
        let fits =
            |it: fs::Metadata| it.is_file() && it.uid() == 0 && it.modified().is_ok_and(|at| at >= began);
        if ours && entry.metadata().is_ok_and(fits) {
            debris.push(entry.path());
        }
    }
    if debris.is_empty() {
        return Ok(());
    }
    // With the lock, no tool is between two of its files.
    let _lock = AccountLock::take()?;
    for path in debris.iter().filter(|path| !is_held(path)) {
        fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// `passwd+` (`passwd.cioXXXXXX` since shadow 4.17), `passwd.lock`, `passwd.1234`.
fn is_debris(name: &str) -> bool {
    let rest = FILES.iter().find_map(|file| name.strip_prefix(file));
    rest.is_some_and(|rest| match rest.strip_prefix('.') {
        Some("lock") => true,
        Some(new) if new.starts_with("cio") => {
            new.len() == 9 && new.bytes().all(|byte| byte.is_ascii_alphanumeric())
        }
        Some(digits) => !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()),
        None => rest == "+",
    })
}

/// Whether the process whose number is in the file lives, and had begun when the file was written: otherwise it is another one, after a
/// restart for example.
fn is_held(path: &Path) -> bool {
    let text = fs::read(path).unwrap_or_default();
    let pid: Option<i32> =
        std::str::from_utf8(&text).ok().and_then(|text| text.trim_end_matches('\0').trim().parse().ok());
    let Some(pid) = pid else { return false };
    let written = fs::metadata(path).and_then(|metadata| metadata.modified());
    let is_later = written.ok().zip(started(pid)).is_some_and(|(written, started)| started > written);
    !is_later && kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// When a process began, up to two seconds early; `None` when there is no telling.
fn started(pid: i32) -> Option<SystemTime> {
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc_pid_stat(5): starttime is the 22nd field; the 2nd is a name in parentheses that may hold anything.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()?.and_then(|ticks| u64::try_from(ticks).ok())?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(boot + ticks.checked_div(per_second)?))
}

#[cfg(test)]
mod tests {
    use super::super::test_host::host;
    use super::*;

    #[test]
    fn only_files_of_account_tools_are_debris() {
        for name in ["passwd+", "passwd.lock", "gshadow.1234", "shadow.cioUaztNz"] {
            assert!(is_debris(name), "{name}");
        }
        for name in [
            "passwd",
            "passwd-",
            "passwd.",
            "passwd.bak",
            "passwd.12a",
            "passwd.ciox",
            "other.12",
            "passwd+x",
        ] {
            assert!(!is_debris(name), "{name}");
        }
    }

    #[test]
    fn half_an_account_goes_and_nothing_else() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (host, etc) = (host(dir.path()), dir.path().join("etc"));
        fs::create_dir(&etc).unwrap();
        let write = |name: &str, text: &str| fs::write(etc.join(name), text).unwrap();
        let read = |name: &str| fs::read_to_string(etc.join(name)).unwrap();
        let all = "root:*::\nnix:!::\nnixbld:!::";
        write("group", "root:x:0:\nnixbld:x:30000:\n");
        remove_half_in(&etc, "group", "gshadow", "nixbld", &host).unwrap();
        assert_eq!(read("group"), "root:x:0:\nnixbld:x:30000:\n", "there is no gshadow");
        write("gshadow", all);
        for (file, other) in [("gshadow", "group"), ("group", "gshadow")] {
            remove_half_in(&etc, file, other, "nixbld", &host).unwrap();
            assert_eq!(read("gshadow"), all, "it has its line in both");
        }
        for _ in 0..2 {
            remove_half_in(&etc, "gshadow", "group", "nix", &host).unwrap();
            assert_eq!(read("gshadow"), "root:*::\nnixbld:!::");
        }
        write("gshadow", "root:*::\n");
        for _ in 0..2 {
            remove_half_in(&etc, "group", "gshadow", "nixbld", &host).unwrap();
            assert_eq!(read("group"), "root:x:0:\n");
        }
    }

    #[test]
    fn what_is_older_than_the_run_or_of_a_living_tool_stays() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        fs::create_dir(&etc).unwrap();
        fs::write(etc.join("passwd.7"), "4194305\0").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let host = host(dir.path());
        fs::create_dir(&host.backups).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        // No process has a number above PID_MAX_LIMIT, 2^22.
        fs::write(etc.join("passwd.lock"), "4194305\0").unwrap();
        fs::write(etc.join("group.8"), "1\0").unwrap();
        // Of ours, from a kill in remove_half.
        fs::write(etc.join(".passwd.nix-unroot-new"), "").unwrap();
        fs::write(etc.join("shadow"), "kept").unwrap();
        sweep_in(&etc, &host).unwrap();
        let mut left: Vec<_> = fs::read_dir(&etc).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["group.8", "passwd.7", "shadow"]);
    }

    #[test]
    fn a_process_that_began_later_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwd.lock");
        fs::write(&path, format!("{}\0", std::process::id())).unwrap();
        assert!(is_held(&path));
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600 * 24)).unwrap();
        assert!(!is_held(&path));
    }
}
