//! Outputs: what a build made becomes the daemon's.
//!
//! They lie in a directory that only root can reach, and nothing of the build's uid is alive, so nothing here can change between two looks. First
//! everything is looked at, then everything changes hands. An output with anything in it that is not simply the build's own is not taken.

use crate::policy::StoreName;
use crate::tree::{kind, names, open, status};
use crate::{Failure, Result};
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, SFlag};
use nix::unistd::{Gid, Uid, fchownat};
use std::collections::HashMap;
use std::ffi::CStr;
use std::os::fd::OwnedFd;

/// The deepest directory, counted from the output. A file is open for each level.
pub const MOST_LEVELS: usize = 128;
/// `S_ISUID` and `S_ISGID`.
const SET_ID: u32 = 0o6000;

/// Which inode: device and number. Their types differ between systems.
type Inode = (u64, u64);

/// Checks all of these entries of `dir`, which belong together: a file may have names in several of them.
///
/// # Errors
/// For the first thing that is not a file, directory or symlink of the build's uid, without set-id bits, with all of its names in here.
pub fn check(dir: &OwnedFd, outputs: &[StoreName], uid: u32) -> Result<()> {
    let mut links: HashMap<Inode, (u64, String)> = HashMap::new();
    for output in outputs {
        let shown = output.as_path().display().to_string();
        walk(dir, output.as_c_str(), &shown, 0, &mut |_, _, shown, status| {
            look(shown, status, uid, &mut links)
        })?;
    }
    match links.into_values().next() {
        None => Ok(()),
        Some((_, shown)) => Err(Failure::new(format!("{shown} has a hard link outside of the outputs"))),
    }
}

/// Gives all of these entries to the daemon's account.
///
/// # Errors
/// When the kernel refuses.
pub fn give(dir: &OwnedFd, outputs: &[StoreName], (uid, gid): (u32, u32)) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    for output in outputs {
        let shown = output.as_path().display().to_string();
        walk(dir, output.as_c_str(), &shown, 0, &mut |at, name, shown, _| {
            crate::platform::clear_flags(at, name)
                .and_then(|()| fchownat(at, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW))
                .map_err(|error| Failure::new(format!("cannot hand {shown} over: {error}")))
        })?;
    }
    Ok(())
}

/// Counts the names of files that have several: what is left over has one that was not seen.
fn look(shown: &str, status: &FileStat, uid: u32, links: &mut HashMap<Inode, (u64, String)>) -> Result<()> {
    let refuse = |what: &str| Err(Failure::new(format!("{shown} {what}")));
    if !matches!(kind(status), SFlag::S_IFREG | SFlag::S_IFDIR | SFlag::S_IFLNK) {
        return refuse("is neither a file nor a directory nor a symlink");
    }
    if status.st_uid != uid {
        return refuse(&format!("belongs to uid {}, not to the build", status.st_uid));
    }
    // The type is narrower on macOS.
    #[allow(clippy::useless_conversion)]
    if kind(status) != SFlag::S_IFLNK && u32::from(status.st_mode) & SET_ID != 0 {
        return refuse("has a set-user-id or set-group-id bit");
    }
    #[allow(clippy::unnecessary_cast)]
    let (inode, count) = ((status.st_dev as u64, status.st_ino as u64), status.st_nlink as u64);
    if kind(status) != SFlag::S_IFDIR && count > 1 {
        let left = links.entry(inode).or_insert((count, shown.to_owned()));
        left.0 -= 1;
        if left.0 == 0 {
            links.remove(&inode);
        }
    }
    Ok(())
}

type Visit<'a> = dyn FnMut(&OwnedFd, &CStr, &str, &FileStat) -> Result<()> + 'a;

/// Visits an entry and, when it is a directory, all below it.
fn walk(at: &OwnedFd, name: &CStr, shown: &str, level: usize, visit: &mut Visit<'_>) -> Result<()> {
    let cannot = |error: nix::Error| Failure::new(format!("cannot look at {shown}: {error}"));
    let found = status(at, name).map_err(cannot)?;
    visit(at, name, shown, &found)?;
    if kind(&found) != SFlag::S_IFDIR {
        return Ok(());
    }
    if level == MOST_LEVELS {
        return Err(Failure::new(format!("{shown} lies more than {MOST_LEVELS} directories deep")));
    }
    let dir = open(at, name).map_err(cannot)?;
    for below in names(&dir).map_err(cannot)? {
        let shown = format!("{shown}/{}", crate::log::shown(below.to_bytes()));
        walk(&dir, &below, &shown, level + 1, visit)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    const OUT: &str = "0123456789abcdfghijklmnpqrsvwxyz-out";
    const DEV: &str = "0123456789abcdfghijklmnpqrsvwxyz-dev";

    fn checked(make: impl Fn(&Path)) -> Result<()> {
        let dir = tempfile::tempdir().unwrap();
        for name in [OUT, DEV] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        make(dir.path());
        let path = CString::new(dir.path().to_str().unwrap()).unwrap();
        let opened = open(nix::fcntl::AT_FDCWD, &path).unwrap();
        let outputs = [OUT, DEV].map(|name| StoreName::new(name.as_bytes()).unwrap());
        let uid = fs::metadata(dir.path()).unwrap().uid();
        check(&opened, &outputs, uid)?;
        give(&opened, &outputs, (uid, fs::metadata(dir.path()).unwrap().gid()))
    }

    fn refused(make: impl Fn(&Path)) -> String {
        checked(make).unwrap_err().to_string()
    }

    #[test]
    fn what_is_a_builds_own_is_taken() {
        checked(|dir| {
            fs::write(dir.join(OUT).join("a"), "x").unwrap();
            fs::hard_link(dir.join(OUT).join("a"), dir.join(DEV).join("b")).unwrap();
            fs::create_dir_all(dir.join(OUT).join("x/y")).unwrap();
            symlink("/etc/shadow", dir.join(OUT).join("x/y/link")).unwrap();
        })
        .unwrap();
    }

    #[test]
    fn what_is_not_is_refused() {
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        for bits in [0o4755, 0o2755, 0o2644] {
            let why = refused(|dir| {
                fs::write(dir.join(OUT).join("su"), "x").unwrap();
                mode(&dir.join(OUT).join("su"), bits);
            });
            assert!(why.contains("-out/su has a set-"), "{why}");
        }
        assert!(refused(|dir| mode(&dir.join(DEV), 0o2755)).contains("set-group-id"));
        let why = refused(|dir| {
            fs::write(dir.join("elsewhere"), "x").unwrap();
            fs::hard_link(dir.join("elsewhere"), dir.join(OUT).join("hard")).unwrap();
        });
        assert!(why.contains("-out/hard has a hard link outside"), "{why}");
        let why = refused(|dir| {
            nix::unistd::mkfifo(&dir.join(OUT).join("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600))
                .unwrap();
        });
        assert!(why.contains("neither a file"), "{why}");
        assert!(refused(|dir| fs::remove_dir(dir.join(DEV)).unwrap()).contains("ENOENT"));
        let deep = "d/".repeat(MOST_LEVELS + 1);
        assert!(refused(|dir| fs::create_dir_all(dir.join(OUT).join(&deep)).unwrap()).contains("deep"));
    }

    #[test]
    fn what_belongs_to_somebody_else_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            return; // Only root can make such a file; the machine test does it as a build.
        }
        let why = refused(|dir| {
            let path = dir.join(OUT).join("foreign");
            fs::write(&path, "x").unwrap();
            std::os::unix::fs::lchown(&path, Some(12), None).unwrap();
        });
        assert!(why.contains("belongs to uid 12"), "{why}");
    }
}
