//! Directories by descriptor: nothing here follows a link, or looks up more than one name at a time.

use crate::{Failure, Result, while_doing};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

/// Opens a directory.
///
/// # Errors
/// When it is none, or a link.
pub fn open(at: impl AsFd, name: &CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// `lstat`.
///
/// # Errors
/// The kernel's.
pub fn status(at: impl AsFd, name: &CStr) -> nix::Result<FileStat> {
    fstatat(at, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// The type in a mode.
#[must_use]
pub fn kind(status: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT
}

/// The names in a directory.
///
/// # Errors
/// The kernel's.
pub fn names(dir: &OwnedFd) -> nix::Result<Vec<CString>> {
    // A description of its own: reading moves its position.
    let mut listing = Dir::from_fd(open(dir, c".")?)?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Makes a directory with exactly this mode, which nobody has made before, and opens it.
///
/// # Errors
/// When something is there, and for whatever the kernel refuses.
pub fn make(at: impl AsFd, name: &CStr, mode: Mode) -> nix::Result<OwnedFd> {
    mkdirat(&at, name, Mode::from_bits_truncate(0o700))?;
    let dir = open(&at, name)?;
    nix::sys::stat::fchmod(&dir, mode)?;
    Ok(dir)
}

/// Removes everything in a directory that only root can change, however deep it goes: what lies below is moved up into it, one directory after
/// the other, so that a path of any length costs neither stack nor files.
///
/// # Errors
/// When something cannot be removed.
pub fn empty(trash: &OwnedFd) -> Result<()> {
    let mut number = 0_u64;
    loop {
        let names = names(trash).map_err(while_doing("list what is to be removed"))?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            remove(trash, &name, &mut number).map_err(|error| {
                Failure::new(format!("cannot remove {name:?}, which a build left: {error}"))
            })?;
        }
    }
}

fn remove(trash: &OwnedFd, name: &CStr, number: &mut u64) -> nix::Result<()> {
    crate::platform::clear_flags(trash, name)?;
    if kind(&status(trash, name)?) != SFlag::S_IFDIR {
        return unlinkat(trash, name, UnlinkatFlags::NoRemoveDir);
    }
    let dir = open(trash, name)?;
    for below in names(&dir)? {
        crate::platform::clear_flags(&dir, &below)?;
        if kind(&status(&dir, &below)?) != SFlag::S_IFDIR {
            unlinkat(&dir, below.as_c_str(), UnlinkatFlags::NoRemoveDir)?;
            continue;
        }
        while let Err(error) = unlinkat(&dir, below.as_c_str(), UnlinkatFlags::RemoveDir) {
            if !matches!(error, Errno::ENOTEMPTY | Errno::EEXIST) {
                return Err(error);
            }
            // A name that a build gave may be in use; then the next.
            *number += 1;
            let up = CString::new(format!("{number}")).map_err(|_| Errno::EINVAL)?;
            match status(trash, &up) {
                Err(Errno::ENOENT) => {
                    nix::fcntl::renameat(&dir, below.as_c_str(), trash, up.as_c_str())?;
                    break;
                }
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
    }
    unlinkat(trash, name, UnlinkatFlags::RemoveDir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn whatever_is_there_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, trash) = (dir.path().join("outside"), dir.path().join("trash"));
        fs::create_dir_all(outside.join("kept")).unwrap();
        fs::write(outside.join("kept/file"), "x").unwrap();
        fs::create_dir_all(trash.join("a/b/c/d")).unwrap();
        fs::create_dir_all(trash.join("1/1/1")).unwrap();
        fs::write(trash.join("a/b/file"), "x").unwrap();
        symlink(&outside, trash.join("a/link")).unwrap();
        symlink(&outside, trash.join("link")).unwrap();
        fs::hard_link(outside.join("kept/file"), trash.join("a/hard")).unwrap();
        // Deeper than any path.
        let mut deep = open(nix::fcntl::AT_FDCWD, &CString::new(trash.to_str().unwrap()).unwrap()).unwrap();
        for _ in 0..1000 {
            deep = make(&deep, c"deep", Mode::from_bits_truncate(0o700)).unwrap();
        }
        let opened = open(nix::fcntl::AT_FDCWD, &CString::new(trash.to_str().unwrap()).unwrap()).unwrap();
        empty(&opened).unwrap();
        assert_eq!(fs::read_dir(&trash).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(outside.join("kept/file")).unwrap(), "x");
    }
}
