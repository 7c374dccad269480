//! Who uses the store right now: what runs from it would run on without its files.

use std::fs;
use std::path::{Path, PathBuf};

use crate::facts::running_processes;
use crate::system::text;

/// A process that uses a path below `/nix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub pid: i32,
    /// Its command line, shortened.
    pub command: String,
    /// One path that it uses, and how: `/nix/store/... (its program)`.
    pub uses: String,
}

/// Programs that are stopped before the store goes.
pub(super) const STOPPED: [&str; 5] =
    ["nix-daemon", "nix-daemon-gate", "nix-root-scan", "nix-build-broker", "determinate-nixd"];
/// Longest command line that is shown, in characters.
const COMMAND_LENGTH: usize = 80;

/// Processes that use anything below `/nix`, other than the daemon's, whose units will be stopped, those of `ending`, uids whose
/// processes will be waited for or ended, and those of containers.
pub fn holders(ending: &[u32]) -> Vec<Holder> {
    let mut holders = Vec::new();
    for process in running_processes() {
        let ends_by_itself = STOPPED.contains(&process.program.as_str()) || ending.contains(&process.uid);
        if process.in_container || ends_by_itself {
            continue;
        }
        if let Some(uses) = used_path(&Path::new("/proc").join(process.pid.to_string())) {
            let command = process.shown().chars().take(COMMAND_LENGTH).collect();
            holders.push(Holder { pid: process.pid, command, uses });
        }
    }
    holders
}

/// One path below `/nix` that the process uses. Paths that the kernel shows are those of the process's own root.
fn used_path(process: &Path) -> Option<String> {
    let link = |name: &str, how: &str| {
        let target = fs::read_link(process.join(name)).ok()?;
        below_nix(&target).map(|path| format!("{path} ({how})"))
    };
    let open = || {
        let files = fs::read_dir(process.join("fd")).ok()?.flatten();
        let mut targets = files.filter_map(|file| fs::read_link(file.path()).ok());
        targets.find_map(|target| below_nix(&target)).map(|path| format!("{path} (an open file)"))
    };
    let mapped = || {
        let maps = fs::read(process.join("maps")).ok()?;
        let maps = String::from_utf8_lossy(&maps);
        let path = maps.lines().find_map(|line| below_nix(Path::new(line.get(line.find('/')?..)?)))?;
        Some(format!("{path} (a library)"))
    };
    link("exe", "its program")
        .or_else(|| link("cwd", "its directory"))
        .or_else(|| link("root", "its root"))
        .or_else(open)
        .or_else(mapped)
}

fn below_nix(path: &Path) -> Option<String> {
    path.starts_with("/nix").then(|| text::path(&path.components().take(4).collect::<PathBuf>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_below_nix_counts() {
        for (path, expected) in [
            ("/nix/store/abc-x/bin/y", Some("/nix/store/abc-x")),
            ("/nix", Some("/nix")),
            ("/nix/store/\u{1b}[2J\n", Some("/nix/store/?[2J?")),
            ("/nixos/store", None),
            ("/home/nix", None),
            ("socket:[1]", None),
        ] {
            assert_eq!(below_nix(Path::new(path)).as_deref(), expected, "{path}");
        }
        assert_eq!(used_path(Path::new("/proc/self")), None);
    }
}
