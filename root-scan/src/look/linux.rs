//! Linux: with `openat2`, and the table of mounts of process 1.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;

use super::{Kind, Mount, Outcome, described, mount_point};
use crate::doubt::Doubt;
use crate::sys;

/// Looks without a child, for the child itself and for tests.
#[derive(Debug)]
pub struct Direct<'a> {
    root: BorrowedFd<'a>,
    proc: &'a Path,
    mounts: HashMap<(u64, u32, u32), Mount>,
}

impl<'a> Direct<'a> {
    /// Absolute paths, and absolute links on the way, begin at `root`. `proc` is where procfs is mounted.
    pub fn new(root: BorrowedFd<'a>, proc: &'a Path) -> Self {
        Self { root, proc, mounts: HashMap::new() }
    }

    /// Looks at one path.
    pub fn one(&mut self, kind: Kind, path: &Path) -> Outcome {
        match kind {
            Kind::Lies => self.lies(path),
            Kind::Named => self.named(path).map_or_else(Outcome::Unseen, Outcome::Thing),
        }
    }

    fn named(&self, path: &Path) -> nix::Result<sys::Thing> {
        let mut parts = path.strip_prefix(self.proc).map_err(|_| Errno::EINVAL)?.components();
        let mut root = self.proc.to_owned();
        for part in parts.by_ref() {
            root.push(part);
            if part.as_os_str() == "root" {
                break;
            }
        }
        let root = sys::open_root(&root)?;
        sys::thing(sys::find_plainly(root, parts.as_path())?, "")
    }

    fn lies(&mut self, path: &Path) -> Outcome {
        let found = match sys::find(self.root, path) {
            Ok(found) => found,
            Err(Errno::EXDEV) => {
                return sys::read_link(AT_FDCWD, path).map_or_else(Outcome::Unseen, Outcome::Magic);
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => return self.absent(path).unwrap_or_else(Outcome::Unseen),
            Err(errno) => return Outcome::Unseen(errno),
        };
        self.present(&found).unwrap_or_else(Outcome::Unseen)
    }

    fn present(&mut self, found: &OwnedFd) -> nix::Result<Outcome> {
        let details = sys::details(found)?;
        let mount = self.mount(found, &details)?;
        match sys::read_link(found, "") {
            Ok(text) => Ok(Outcome::Link { text, mount, owner: details.owner }),
            // An empty path gives ENOENT for what is no link (man 2 readlink).
            Err(Errno::ENOENT | Errno::EINVAL) => Ok(Outcome::Other(mount)),
            Err(errno) => Err(errno),
        }
    }

    /// The nearest existing parent is held open while we make sure that the next name is missing in it: so no mount or unmount
    /// in between can pair the absence with the wrong file system.
    fn absent(&mut self, path: &Path) -> nix::Result<Outcome> {
        let mut missing = path;
        while let Some(parent) = missing.parent() {
            // With the dot, a symlink is followed.
            match sys::find(self.root, &parent.join(".")) {
                Ok(found) => {
                    let name = missing.file_name().unwrap_or(OsStr::new("."));
                    return match sys::status(&found, name) {
                        Err(Errno::ENOENT) => self.absent_in(&found),
                        Ok(status) if sys::is_plain(&status) => self.absent_in(&found),
                        // There now, or a link that leads nowhere: no absence that anybody vouches for.
                        Ok(_) => Ok(Outcome::Absent(None)),
                        Err(errno) => Err(errno),
                    };
                }
                Err(Errno::ENOENT | Errno::ENOTDIR) => missing = parent,
                Err(errno) => return Err(errno),
            }
        }
        Ok(Outcome::Absent(None))
    }

    fn absent_in(&mut self, parent: &OwnedFd) -> nix::Result<Outcome> {
        // Without its key, an encrypted directory (fscrypt) has none of the names that it has with it.
        let details = sys::details(parent)?;
        if details.encrypted {
            return Ok(Outcome::Absent(None));
        }
        Ok(Outcome::Absent(self.mount(parent, &details)?))
    }

    fn mount(&mut self, file: &OwnedFd, details: &sys::Details) -> nix::Result<Mount> {
        let Some(key) = details.mount else { return Ok(None) };
        if let Some(mount) = self.mounts.get(&key) {
            return Ok(mount.clone());
        }
        let table = std::fs::read(self.proc.join("1/mountinfo")).map_err(|error| errno(&error))?;
        let mount = match described(&table, key.0) {
            // What a tmpfs held is gone with it, so each of them may be taken for the one before.
            Some(text) if text.windows(7).any(|word| word == b" tmpfs ") => Some(text),
            Some(mut text) => {
                let id = nix::sys::statvfs::fstatvfs(file)?.filesystem_id();
                text.extend_from_slice(format!(" {id:x}").as_bytes());
                Some(text)
            }
            None => None,
        };
        self.mounts.insert(key, mount.clone());
        Ok(mount)
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))
}

/// The mount point of the mount on which `path` lies, by the text alone.
///
/// # Errors
/// When the table of mounts cannot be read.
pub fn mount_of(proc: &Path, path: &Path) -> Result<PathBuf, Doubt> {
    let table = proc.join("1/mountinfo");
    let text = std::fs::read(&table).map_err(|error| Doubt::unreadable(&table, errno(&error)))?;
    Ok(mount_point(&text, path))
}
