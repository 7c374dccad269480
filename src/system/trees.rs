//! Removing and copying trees of files, with rm(1) and cp(1), however long it takes with root's rights.
//!
//! rm and not the standard library, whose recursion a tree of some thousand levels stops. Both follow no link, so a tree may be hostile. A
//! Mac's tools know no long options, and its rm knows `-x` only since macOS 12.3 (`rm/rm.c` of Apple's file_cmds-353.100.22); so there mounts
//! are looked for beforehand.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::command::{self, CommandError};
use super::kernel;

/// How long removing may take with another user's rights, who may hold it up.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Why a tree is still there, or not all of it gone.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The tool says why.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Another file system.
    #[error("{0} is mounted below: unmount it, and try again")]
    Mounted(PathBuf),
}

/// Removes what is at `path` and all below it. Nothing there is fine. What is mounted below stays and is an error.
///
/// # Errors
/// When something is left.
pub fn remove(path: &Path) -> Result<(), TreeError> {
    remove_with_rights(None, &[path.to_owned()])
}

/// The same for several, with the rights of this uid and gid: for trees with links to anywhere on the way to them.
///
/// # Errors
/// As for [`remove`].
pub fn remove_as(user: (u32, u32), paths: &[PathBuf]) -> Result<(), TreeError> {
    remove_with_rights(Some(user), paths)
}

fn remove_with_rights(user: Option<(u32, u32)>, paths: &[PathBuf]) -> Result<(), TreeError> {
    let options: &[&str] = match kernel::is_mac() {
        true => {
            let said = command::run("mount", &[] as &[&str])?;
            if let Some(mounted) = paths.iter().find_map(|path| mounted_below(&said, path)) {
                return Err(TreeError::Mounted(mounted));
            }
            &["-rf", "--"]
        }
        false => &["--recursive", "--force", "--one-file-system", "--"],
    };
    let words: Vec<&OsStr> =
        options.iter().map(OsStr::new).chain(paths.iter().map(|path| path.as_os_str())).collect();
    match user {
        Some(user) => command::run_as(user, LIMIT, "rm", &words)?,
        None => command::run_without_limit("rm", &words)?,
    };
    Ok(())
}

/// Copies a tree, with owners, modes and times, to a path where nothing is.
///
/// # Errors
/// When it cannot be copied as a whole.
pub fn copy(from: &Path, to: &Path) -> Result<(), TreeError> {
    let options: &[&str] =
        if kernel::is_mac() { &["-a", "--"] } else { &["--archive", "--no-target-directory", "--"] };
    let words: Vec<OsString> = options.iter().map(OsString::from).chain([from.into(), to.into()]).collect();
    command::run_without_limit("cp", &words)?;
    Ok(())
}

/// What is mounted below `path`, as mount(8) of a Mac tells: `/dev/disk3s7 on /nix (apfs, local)`.
fn mounted_below(mounts: &str, path: &Path) -> Option<PathBuf> {
    // `/var` is a link on a Mac. Only the name itself may be somebody else's.
    let real = path.parent().and_then(|parent| parent.canonicalize().ok());
    let real = real.zip(path.file_name()).map_or_else(|| path.to_owned(), |(parent, name)| parent.join(name));
    let place = |line: &str| Some(PathBuf::from(line.split_once(" on ")?.1.rsplit_once(" (")?.0));
    mounts.lines().filter_map(place).find(|place| *place != real && place.starts_with(&real))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_below_is_found() {
        let mounts = "/dev/disk3s1s1 on / (apfs, sealed, local)\n/dev/disk3s7 on /nix (apfs, local, nobrowse)\n\
                      /dev/disk5s1 on /nix/var/a disk (1) (apfs, local)\nmap auto_home on /home (autofs)\n";
        let below = |path: &str| mounted_below(mounts, Path::new(path));
        assert_eq!(below("/nix/var"), Some("/nix/var/a disk (1)".into()));
        assert_eq!(below("/nix"), Some("/nix/var/a disk (1)".into()));
        for free in ["/nix/store", "/nix/var/a disk (1)", "/nix/v", "/hom"] {
            assert_eq!(below(free), None, "{free}");
        }
    }

    #[test]
    fn a_tree_is_copied_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        std::fs::create_dir_all(from.join("a/b")).unwrap();
        std::os::unix::fs::symlink("/nowhere", from.join("a/link")).unwrap();
        copy(&from, &to).unwrap();
        assert!(to.join("a/link").is_symlink() && to.join("a/b").is_dir());
        for _ in 0..2 {
            remove(&from).unwrap();
            assert!(!from.exists() && to.exists());
        }
    }
}
