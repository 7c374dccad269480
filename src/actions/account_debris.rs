//! What an account tool leaves beside the account files when it is killed.
//!
//! shadow's tools write `passwd+` and rename it, and hold `passwd.lock`, a link to `passwd.PID` (`lib/commonio.c`). A later
//! tool takes a dead one's lock over, but the other files stay for ever.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::Host;
use super::edit::{AccountLock, Original, read_or_empty};

const FILES: [&str; 6] = ["passwd", "group", "shadow", "gshadow", "subuid", "subgid"];

/// Removes from `/etc` what tools left that died since this run began. What is older is somebody else's.
///
/// # Errors
/// When an account tool is at work for too long, or something cannot be removed.
pub fn sweep(host: &Host<'_>) -> Result<()> {
    sweep_in(Path::new("/etc"), host)
}

/// Whether `name` has a line in `/etc/FILE`, but none in the shadow file that goes with it: a tool died in between.
pub fn is_half_made(file: &str, shadow: &str, name: &str) -> bool {
    let has = |file: &str| {
        let text = fs::read_to_string(Path::new("/etc").join(file)).ok()?;
        Some(text.lines().any(|line| line.split(':').next() == Some(name)))
    };
    has(file) == Some(true) && has(shadow) == Some(false)
}

/// Ends the removal of `name` that a tool began and did not live to end: it takes the line out of `/etc/FILE` first, and the one in the
/// shadow file that goes with it later.
///
/// # Errors
/// When an account tool is at work for too long, or a file cannot be read or written.
pub fn finish_removal(file: &str, shadow: &str, name: &str, host: &Host<'_>) -> Result<()> {
    finish_removal_in(Path::new("/etc"), file, shadow, name, host)
}

fn finish_removal_in(directory: &Path, file: &str, shadow: &str, name: &str, host: &Host<'_>) -> Result<()> {
    let is_its = |line: &str| line.split(':').next() == Some(name);
    let _lock = AccountLock::take()?;
    let shadow = directory.join(shadow);
    let text = read_or_empty(&shadow)?;
    if read_or_empty(&directory.join(file))?.lines().any(is_its) || !text.lines().any(is_its) {
        return Ok(());
    }
    let rest: String = text.split_inclusive('\n').filter(|line| !is_its(line)).collect();
    Original::capture(&shadow, host)?.write(&rest)
}

fn sweep_in(directory: &Path, host: &Host<'_>) -> Result<()> {
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

/// Whether the process whose number is in the file lives.
fn is_held(path: &Path) -> bool {
    let text = fs::read(path).unwrap_or_default();
    let pid =
        std::str::from_utf8(&text).ok().and_then(|text| text.trim_end_matches('\0').trim().parse().ok());
    pid.is_some_and(|pid| kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH))
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
    fn half_a_removal_is_ended_and_nothing_else_goes() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (host, etc) = (host(dir.path()), dir.path().join("etc"));
        fs::create_dir(&etc).unwrap();
        fs::write(etc.join("group"), "root:x:0:\nnixbld:x:30000:\n").unwrap();
        let all = "root:*::\nnix:!::\nnixbld:!::";
        fs::write(etc.join("gshadow"), all).unwrap();
        finish_removal_in(&etc, "group", "gshadow", "nixbld", &host).unwrap();
        assert_eq!(fs::read_to_string(etc.join("gshadow")).unwrap(), all, "it has its line in both");
        for _ in 0..2 {
            finish_removal_in(&etc, "group", "gshadow", "nix", &host).unwrap();
            assert_eq!(fs::read_to_string(etc.join("gshadow")).unwrap(), "root:*::\nnixbld:!::");
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
        fs::write(etc.join("shadow"), "kept").unwrap();
        sweep_in(&etc, &host).unwrap();
        let mut left: Vec<_> = fs::read_dir(&etc).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["group.8", "passwd.7", "shadow"]);
    }
}
