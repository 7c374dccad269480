//! Removing and copying trees of files, with rm(1) and cp(1), however long it takes with root's rights.
//!
//! rm and not the standard library, whose recursion a tree of some thousand levels stops. Both follow no link, so a tree may be hostile. A
//! Mac's tools know no long options, and its rm knows `-x` only since macOS 12.3 (`rm/rm.c` of Apple's file_cmds-353.100.22); that of Linux
//! goes into what is mounted from the same file system. So mounts are looked for beforehand.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::command::{self, CommandError};
use super::{kernel, mounts};

/// How long removing may take with another user's rights, who may hold it up.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Why a tree is still there, or not all of it gone.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The tool says why.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Something that is mounted, be it from the same file system.
    #[error("something is mounted at {}: unmount it, and try again", super::text::path(.0))]
    Mounted(PathBuf),
    /// Nobody knows what is mounted.
    #[error("cannot read /proc/self/mountinfo: {0}")]
    Unknown(#[source] io::Error),
}

/// Removes what is at `path` and all below it. Nothing there is fine. Where something is mounted there or below, nothing is removed.
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
    let mounts = mount_points()?;
    if let Some(mounted) = paths.iter().find_map(|path| mounted_at(&mounts, path)) {
        return Err(TreeError::Mounted(mounted));
    }
    let options: &[&str] = match kernel::is_mac() {
        true => &["-rf", "--"],
        // Somebody may mount something meanwhile.
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

/// Where something is mounted on this machine.
fn mount_points() -> Result<Vec<PathBuf>, TreeError> {
    if !kernel::is_mac() {
        let table = fs::read("/proc/self/mountinfo").map_err(TreeError::Unknown)?;
        return Ok(mounts::points(&String::from_utf8_lossy(&table)).collect());
    }
    Ok(points_of_a_mac(&command::run("mount", &[] as &[&str])?))
}

/// As mount(8) of a Mac tells: `/dev/disk3s7 on /nix (apfs, local)`.
fn points_of_a_mac(said: &str) -> Vec<PathBuf> {
    let point = |line: &str| Some(PathBuf::from(line.split_once(" on ")?.1.rsplit_once(" (")?.0));
    said.lines().filter_map(point).collect()
}

/// What is mounted at `path` or below.
fn mounted_at(mounts: &[PathBuf], path: &Path) -> Option<PathBuf> {
    // `/var` is a link on a Mac. Only the name itself may be somebody else's.
    let real = path.parent().and_then(|parent| parent.canonicalize().ok());
    let real = real.zip(path.file_name()).map_or_else(|| path.to_owned(), |(parent, name)| parent.join(name));
    mounts.iter().find(|point| point.starts_with(&real)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_is_found() {
        let mounts = "/dev/disk3s1s1 on / (apfs, sealed, local)\n/dev/disk3s7 on /nix (apfs, local, nobrowse)\n\
                      /dev/disk5s1 on /nix/var/a disk (1) (apfs, local)\nmap auto_home on /home (autofs)\n";
        let mounts = points_of_a_mac(mounts);
        let below = |path: &str| mounted_at(&mounts, Path::new(path));
        assert_eq!(below("/nix/var"), Some("/nix/var/a disk (1)".into()));
        assert_eq!(below("/nix"), Some("/nix".into()));
        for free in ["/nix/store", "/nix/v", "/hom"] {
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
    /// rm's own look at devices does not see what is mounted from the same one.
    #[cfg(target_os = "linux")]
    #[test]
    fn nothing_is_removed_from_what_is_mounted() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        let dir = tempfile::tempdir().unwrap();
        let (theirs, tree) = (dir.path().join("theirs"), dir.path().join("tree"));
        let point = tree.join("a b");
        fs::create_dir_all(&point).unwrap();
        fs::create_dir(&theirs).unwrap();
        fs::write(theirs.join("file"), "").unwrap();
        let none = None::<&str>;
        mount(Some(&theirs), &point, none, MsFlags::MS_BIND, none).unwrap();
        let refused: Vec<_> = [&tree, &point].map(|path| remove(path)).into();
        umount2(&point, MntFlags::empty()).unwrap();
        for refused in refused {
            assert!(matches!(&refused, Err(TreeError::Mounted(at)) if *at == point), "{refused:?}");
        }
        assert!(theirs.join("file").exists() && point.exists());
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }
}
