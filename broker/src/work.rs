//! Root's own directory: where builds are prepared, and where outputs are looked at before the store gets them.
//!
//! ```text
//! WORK/lock            held by the broker and by every process that looks after a build
//! WORK/UID/outputs     names of what this build is to make
//! WORK/UID/build       macOS: its directory      WORK/UID/root   Linux: its root, with build and the store in it
//! WORK/UID/out         0700: outputs while they are looked at
//! WORK/UID/trash       0700: what is being removed
//! ```

use crate::args::Serve;
use crate::platform::{self, Dirs};
use crate::policy::{Build, StoreName};
use crate::tree::{self, names, status};
use crate::{Failure, Result, handover, while_doing};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, unlinkat};
use std::ffi::{CStr, CString};
use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The directory, and the store beside it.
#[derive(Debug)]
pub struct Work {
    dir: OwnedFd,
    path: PathBuf,
    store: OwnedFd,
}

/// A build's part of it.
#[derive(Debug)]
pub struct Place {
    dirs: Dirs,
    out: OwnedFd,
    trash: OwnedFd,
}

impl Work {
    /// Opens both, and makes the first when it is missing.
    ///
    /// # Errors
    /// When somebody else could write there, or the two are on different file systems.
    pub fn open(work: &Path, store: &Path) -> Result<Self> {
        let name = path_text(work)?;
        match mkdirat(AT_FDCWD, name.as_c_str(), Mode::from_bits_truncate(0o711)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(while_doing(format!("make {}", work.display()))(error)),
        }
        let open = |path: &Path| {
            tree::open(AT_FDCWD, &path_text(path)?).map_err(while_doing(format!("open {}", path.display())))
        };
        let (dir, store) = (open(work)?, open(store)?);
        let look = |dir: &OwnedFd| fstat(dir).map_err(while_doing(format!("look at {}", work.display())));
        let (ours, theirs) = (look(&dir)?, look(&store)?);
        if ours.st_uid != geteuid().as_raw() || ours.st_mode & 0o022 != 0 {
            return Err(Failure::new(format!(
                "{} belongs to uid {} with mode {:o}: only root may be able to write there; remove it",
                work.display(),
                ours.st_uid,
                ours.st_mode & 0o7777
            )));
        }
        if ours.st_dev != theirs.st_dev {
            return Err(Failure::new(format!("{} is not on the file system of the store", work.display())));
        }
        Ok(Self { dir, path: work.to_owned(), store })
    }

    /// Keeps a second broker away, until this process and all that it forked have ended.
    ///
    /// # Errors
    /// When there is one.
    pub fn lock(&self) -> Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.dir, c"lock", flags, Mode::from_bits_truncate(0o600));
        let file = File::from(file.map_err(while_doing("open the broker's lock"))?);
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Failure::new(format!(
                "a build broker already works in {}, or one that has ended still tidies up there",
                self.path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(while_doing("lock the broker's directory")(error)),
        }
    }

    /// Where the part of this uid lies.
    #[must_use]
    pub fn path_of(&self, uid: u32) -> PathBuf {
        self.path.join(uid.to_string())
    }

    /// Removes whatever an earlier build of this uid left here, and in the store. Nothing of the uid is alive.
    ///
    /// # Errors
    /// When something cannot be removed; the uid must not be used then.
    pub fn clear(&self, uid: u32) -> Result<()> {
        let name = number(uid);
        let dir = match tree::open(&self.dir, &name) {
            Ok(dir) => dir,
            Err(Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(while_doing(format!("open {}", self.path_of(uid).display()))(error)),
        };
        let cannot = || while_doing::<nix::Error>(format!("clear {}", self.path_of(uid).display()));
        let trash = match tree::make(&dir, c"trash", private()) {
            Err(Errno::EEXIST) => tree::open(&dir, c"trash"),
            made => made,
        }
        .map_err(cannot())?;
        tree::empty(&trash)?;
        for output in listed(&dir)? {
            // Only what the build made itself: since it ended, something of the daemon's may stand there.
            if status(&self.store, output.as_c_str()).is_ok_and(|found| found.st_uid == uid) {
                renameat(&self.store, output.as_c_str(), &trash, output.as_c_str()).map_err(cannot())?;
            }
        }
        tree::empty(&trash)?;
        for entry in names(&dir).map_err(cannot())?.into_iter().filter(|entry| entry.as_c_str() != c"trash") {
            renameat(&dir, entry.as_c_str(), &trash, entry.as_c_str()).map_err(cannot())?;
        }
        tree::empty(&trash)?;
        unlinkat(&dir, c"trash", UnlinkatFlags::RemoveDir)
            .and_then(|()| unlinkat(&self.dir, name.as_c_str(), UnlinkatFlags::RemoveDir))
            .map_err(cannot())
    }

    /// Makes everything that a build needs. What is there belongs to root, but for the build's own directory.
    ///
    /// # Errors
    /// When an output already exists, an input does not, or there is no room.
    pub fn prepare(&self, uid: u32, serve: &Serve, build: &Build) -> Result<Place> {
        let cannot = || while_doing::<nix::Error>(format!("prepare {}", self.path_of(uid).display()));
        for output in &build.outputs {
            if status(&self.store, output.as_c_str()).is_ok() {
                return Err(Failure::new(format!("output {} already exists", output.as_path().display())));
            }
        }
        let mode = Mode::from_bits_truncate(0o711);
        let dir = tree::make(&self.dir, &number(uid), mode).map_err(cannot())?;
        write(&dir, c"outputs", &list(&build.outputs), None)?;
        let trash = tree::make(&dir, c"trash", private()).map_err(cannot())?;
        let out = tree::make(&dir, c"out", private()).map_err(cannot())?;
        let dirs = platform::prepare(&dir, &self.store, serve, build)?;
        for (name, text) in &build.files {
            write(&dirs.build, name, text, Some((uid, serve.gid)))?;
        }
        fchown(&dirs.build, Some(Uid::from_raw(uid)), Some(Gid::from_raw(serve.gid))).map_err(cannot())?;
        Ok(Place { dirs, out, trash })
    }

    /// Takes the outputs that the build made, gives them to the daemon's account and puts them into the store. An output that is missing is for Nix to
    /// complain about. Nothing of the uid is alive.
    ///
    /// # Errors
    /// When one of them is not what a build may make; none of them is in the store then.
    pub fn hand_over(&self, place: &Place, uid: u32, serve: &Serve, build: &Build) -> Result<()> {
        let mut made = Vec::new();
        for output in &build.outputs {
            let name = output.as_c_str();
            match renameat(&place.dirs.made, name, &place.out, name) {
                Ok(()) => made.push(output.clone()),
                Err(Errno::ENOENT) => {}
                Err(error) => {
                    return Err(while_doing(format!("take output {}", output.as_path().display()))(error));
                }
            }
        }
        // First the build's directory, whose files may be linked to those of an output.
        renameat(&place.dirs.parent, c"build", &place.trash, c"build")
            .map_err(while_doing("remove the build directory"))?;
        tree::empty(&place.trash)?;
        handover::check(&place.out, &made, uid)?;
        handover::give(&place.out, &made, serve.client)?;
        for output in &made {
            platform::rename_new(&place.out, &self.store, output.as_c_str())
                .map_err(while_doing(format!("put output {} into the store", output.as_path().display())))?;
        }
        Ok(())
    }
}

fn private() -> Mode {
    Mode::from_bits_truncate(0o700)
}

fn number(uid: u32) -> CString {
    // A number has no NUL.
    CString::new(uid.to_string()).unwrap_or_default()
}

fn path_text(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(while_doing("use a path"))
}

/// Writes a file that nobody has made before.
///
/// # Errors
/// When something is there, or there is no room.
pub(crate) fn write(dir: impl AsFd, name: &CStr, text: &[u8], owner: Option<(u32, u32)>) -> Result<()> {
    let cannot = || while_doing::<std::io::Error>(format!("write the file {name:?}"));
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(dir, name, flags, Mode::from_bits_truncate(0o644));
    let mut file = File::from(file.map_err(|error| cannot()(error.into()))?);
    file.write_all(text).map_err(cannot())?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid)).map_err(cannot())?;
    }
    Ok(())
}

fn list(outputs: &[StoreName]) -> Vec<u8> {
    let line = |output: &StoreName| [output.as_c_str().to_bytes(), b"\n"].concat();
    outputs.iter().flat_map(line).collect()
}

fn listed(dir: &OwnedFd) -> Result<Vec<StoreName>> {
    let mut text = Vec::new();
    match openat(dir, c"outputs", OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(Vec::new()),
        Err(error) => return Err(while_doing("read the list of outputs")(error)),
        Ok(file) => {
            File::from(file).read_to_end(&mut text).map_err(while_doing("read the list of outputs"))?;
        }
    }
    // A line that was cut off is one that was not made yet.
    Ok(text.split(|byte| *byte == b'\n').filter_map(StoreName::new).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    const OUT: &str = "0123456789abcdfghijklmnpqrsvwxyz-out";
    const KEPT: &str = "0123456789abcdfghijklmnpqrsvwxyz-kept";

    #[test]
    fn what_a_build_left_is_removed_also_from_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let (work_dir, store) = (dir.path().join("work"), dir.path().join("store"));
        fs::create_dir_all(store.join(OUT).join("bin")).unwrap();
        fs::create_dir_all(store.join(KEPT)).unwrap();
        let work = Work::open(&work_dir, &store).unwrap();
        let uid = fs::metadata(&store).unwrap().uid();
        assert!(work.clear(uid).is_ok(), "nothing is there");
        let part = work.path_of(uid);
        fs::create_dir_all(part.join("build/a/b")).unwrap();
        fs::create_dir_all(part.join("trash/build")).unwrap();
        fs::write(part.join("outputs"), format!("{OUT}\n../{KEPT}\n{}", &KEPT[..20])).unwrap();
        work.clear(uid).unwrap();
        assert!(!part.exists() && !store.join(OUT).exists() && store.join(KEPT).exists());
        // What stands there by now belongs to somebody else.
        fs::create_dir_all(store.join(OUT)).unwrap();
        let other = uid + 1;
        fs::create_dir_all(work.path_of(other)).unwrap();
        fs::write(work.path_of(other).join("outputs"), format!("{OUT}\n")).unwrap();
        work.clear(other).unwrap();
        assert!(store.join(OUT).exists());
    }

    #[test]
    fn a_directory_that_others_can_write_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (work, store) = (dir.path().join("work"), dir.path().join("store"));
        fs::create_dir_all(&store).unwrap();
        fs::create_dir(&work).unwrap();
        fs::set_permissions(&work, fs::Permissions::from_mode(0o775)).unwrap();
        assert!(Work::open(&work, &store).unwrap_err().to_string().contains("only root"));
        fs::set_permissions(&work, fs::Permissions::from_mode(0o711)).unwrap();
        let opened = Work::open(&work, &store).unwrap();
        let held = opened.lock().unwrap();
        let second = Work::open(&work, &store).unwrap();
        assert!(second.lock().unwrap_err().to_string().contains("already"));
        drop(held);
        second.lock().unwrap();
        std::os::unix::fs::symlink(&work, dir.path().join("link")).unwrap();
        assert!(Work::open(&dir.path().join("link"), &store).is_err(), "a link");
    }
}
