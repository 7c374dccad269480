//! Files that are replaced whole or not at all, and remembered exactly.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::path::Arg;
use xattr::FileExt;

use super::access_list::ACCESS_LIST;
use super::{checkpoint, kernel};

/// Owner, group and permission bits of a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl Ownership {
    /// root:root with the given permission bits.
    pub fn root(mode: u32) -> Self {
        Self { uid: 0, gid: 0, mode }
    }

    /// That of an existing file.
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & 0o7777 }
    }
}

/// Writes `bytes` to `path` so that, at any instant, `path` holds either what it held or all of `bytes`: a temporary
/// file beside it, synced, renamed over it, and the directory synced.
///
/// # Errors
/// The system's reason; then `path` is as it was and the temporary file is gone.
pub fn replace(path: &Path, bytes: &[u8], ownership: Ownership) -> io::Result<()> {
    replace_with(path, bytes, ownership, |_| Ok(()))
}

/// As [`replace`]; `finish` does the rest to the new file before its mode opens it to others and it takes its place.
///
/// # Errors
/// As [`replace`], and what `finish` returns.
pub fn replace_with(
    path: &Path,
    bytes: &[u8],
    ownership: Ownership,
    finish: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    through_temporary(path, |temporary| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
        file.write_all(bytes)?;
        std::os::unix::fs::fchown(&file, Some(ownership.uid), Some(ownership.gid))?;
        // The directory's default list would let in whom the mode does not name.
        if file.get_xattr(ACCESS_LIST).is_ok_and(|list| list.is_some()) {
            file.remove_xattr(ACCESS_LIST)?;
        }
        finish(&file)?;
        file.set_permissions(Permissions::from_mode(ownership.mode))?;
        checkpoint::inside("file-written");
        file.sync_all()
    })
}

/// Makes `path` a symbolic link to `target`, replacing what was there in one step.
///
/// # Errors
/// The system's reason; then `path` is as it was.
pub fn replace_with_symlink(path: &Path, target: &Path) -> io::Result<()> {
    through_temporary(path, |temporary| symlink(target, temporary))
}

/// Makes the directory `path`, where nothing is, so that at any instant there is none or one with this owner and mode.
///
/// # Errors
/// The system's reason; then there is none.
pub fn create_directory(path: &Path, ownership: Ownership) -> io::Result<()> {
    through_temporary(path, |temporary| {
        DirBuilder::new().mode(0o700).create(temporary)?;
        checkpoint::inside("directory-made");
        lchown(temporary, Some(ownership.uid), Some(ownership.gid))?;
        checkpoint::inside("owner-set");
        fs::set_permissions(temporary, Permissions::from_mode(ownership.mode))
    })
}

/// Removes a file or link and syncs its directory. A file that is not there is fine.
///
/// # Errors
/// The system's reason, other than that the file is not there.
pub fn remove(path: &Path) -> io::Result<()> {
    forget_temporary(path);
    // On a file system that is read-only, removing what is not there fails, too.
    if fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    fs::remove_file(path)?;
    checkpoint::inside("file-removed");
    sync_parent(path)
}

/// Removes what a killed run may have left beside `path`.
pub fn forget_temporary(path: &Path) {
    if let Ok(temporary) = temporary_beside(path) {
        forget(&temporary);
    }
}

/// A temporary file, or the directory of [`create_directory`], which is empty.
fn forget(temporary: &Path) {
    let _ = fs::remove_file(temporary).or_else(|_| fs::remove_dir(temporary));
}

/// Syncs the directory that holds `path`, so that a change of names survives a power cut.
///
/// # Errors
/// The system's reason.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(parent(path)?)?.sync_all()
}

/// Opens a directory whose parents are root's, so that the path means what it says; a link in its place is refused all the same.
///
/// # Errors
/// When it is no directory, or cannot be read.
pub fn open_directory(path: &Path) -> io::Result<File> {
    let flags = nix::libc::O_DIRECTORY | nix::libc::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// Opens a directory in another one; a link in its place is refused.
///
/// # Errors
/// When it is no directory, or cannot be read.
pub fn open_directory_in(parent: impl AsFd, name: impl Arg) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty()).map(File::from)
}

/// Opens the directory of `path`, and its own name in that. Below `/nix`, where the daemon's user may put a link in the place of what is
/// its own, there is none on the way.
///
/// # Errors
/// When it cannot be opened; [`is_diverted`] tells when that is for a link on the way.
pub fn open_parent(path: &Path) -> io::Result<(OwnedFd, &OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = parent(path)?;
    let directory = match path.starts_with("/nix") {
        true => kernel::open_dir(parent)?,
        false => File::open(parent)?.into(),
    };
    Ok((directory, name))
}

/// Whether opening failed because there is a link, or something else that is no directory, where none was made.
pub fn is_diverted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::ELOOP | nix::libc::ENOTDIR))
}

/// Puts on the disk all that was changed on the file systems of these directories. One that is not there is left out, and so is what has
/// taken the name of one and is no directory.
///
/// # Errors
/// The directory, and the system's reason.
pub fn sync_file_systems(directories: &[impl AsRef<Path>]) -> Result<(), (PathBuf, io::Error)> {
    let mut synced = Vec::new();
    for path in directories.iter().map(AsRef::as_ref) {
        let Ok(directory) = open_directory(path) else { continue };
        let failed = |error: io::Error| (path.to_owned(), error);
        let device = directory.metadata().map_err(failed)?.dev();
        if !synced.contains(&device) {
            kernel::sync_file_system(&directory).map_err(failed)?;
            synced.push(device);
        }
    }
    Ok(())
}

/// `path` with every symbolic link in its directory followed, but not one in its last component.
///
/// # Errors
/// When the directory is not there.
pub fn real_parent(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(fs::canonicalize(parent(path)?)?.join(name))
}

fn through_temporary(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let temporary = temporary_beside(path)?;
    forget(&temporary);
    make(&temporary)
        .and_then(|()| {
            checkpoint::inside("file-synced");
            fs::rename(&temporary, path)
        })
        .inspect_err(|_| forget(&temporary))?;
    checkpoint::inside("file-in-place");
    sync_parent(path)
}

/// One run at a time holds the lock, so a fixed name cannot meet another run's.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    Ok(path.with_file_name(format!(".{name}.nix-unroot-new")))
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    use super::super::access_list::AccessList;
    use super::*;

    fn mine(mode: u32) -> Ownership {
        Ownership { uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw(), mode }
    }

    #[test]
    fn a_replaced_file_has_bytes_and_mode_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace(&path, b"one", mine(0o640)).unwrap();
        replace(&path, b"two", mine(0o604)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o604);
        replace_with_symlink(&path, Path::new("/dev/null")).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("/dev/null"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_new_file_has_nothing_of_its_directorys_default_list() {
        // A file system with lists: /tmp may be one without.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = dir.path().join("file");
        let mut list = AccessList::of_mode(0o750);
        list.allow_group(55, 0o5);
        xattr::set(dir.path(), "system.posix_acl_default", &list.to_bytes()).unwrap();
        replace(&path, b"one", mine(0o640)).unwrap();
        assert_eq!(xattr::get(&path, ACCESS_LIST).unwrap(), None);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    }

    #[test]
    fn a_directory_is_made_whole_whatever_a_kill_left_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("directory");
        let leftovers: [fn(&Path) -> io::Result<()>; 2] =
            [|path| fs::create_dir(path), |path| fs::write(path, "")];
        for leave in leftovers {
            leave(&temporary_beside(&path).unwrap()).unwrap();
            create_directory(&path, mine(0o2750)).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o2750);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
            fs::remove_dir(&path).unwrap();
        }
    }

    #[test]
    fn a_file_that_cannot_be_replaced_is_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("directory");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"x", mine(0o600)).is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
