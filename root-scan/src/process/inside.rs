//! Which store paths hold a file, by its inode. Names and numbers only: nothing but directories is opened.

use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Type;
use nix::errno::Errno;

use crate::doubt::Doubt;
use crate::roots::Roots;
use crate::store_path::{STORE_DIR, StorePath};
use crate::sys;

/// Each level holds an open directory, of which the unit may have 1024. What is deeper counts as holding everything.
const MAX_DEPTH: usize = 512;

/// Adds each store path in `store` that is or holds one of the `wanted` inodes, with the place where that is held. Files of several store paths may be
/// one inode (`auto-optimise-store`): then all of them count. On an overlay a directory's entries are not to be believed.
///
/// # Errors
/// What keeps a directory from being read.
pub fn find(
    store: OwnedFd,
    wanted: &HashMap<u64, PathBuf>,
    overlay: bool,
    roots: &mut Roots,
) -> Result<(), Doubt> {
    let search = Search { wanted, overlay };
    let (found, below) = search.list(&store, Path::new(STORE_DIR))?;
    for (name, place) in found {
        roots.add(name.as_bytes(), || place.clone())?;
    }
    for name in below.iter().filter(|name| StorePath::from_base_name(name.as_bytes()).is_some()) {
        let path = Path::new(STORE_DIR).join(name.to_string_lossy().as_ref());
        if let Some(place) = search.within(&store, name, &path, 0)? {
            roots.add(name.as_bytes(), || place.clone())?;
        }
    }
    Ok(())
}

struct Search<'a> {
    wanted: &'a HashMap<u64, PathBuf>,
    overlay: bool,
}

/// What a directory has that is wanted, with the place where it is held; and its directories.
type Listed<'a> = (Vec<(CString, &'a PathBuf)>, Vec<CString>);

impl<'a> Search<'a> {
    fn within(
        &self,
        parent: &OwnedFd,
        name: &CString,
        path: &Path,
        depth: usize,
    ) -> Result<Option<&'a PathBuf>, Doubt> {
        if depth > MAX_DEPTH {
            // It may lie below. To be kept for nothing harms nobody.
            return Ok(self.wanted.values().next());
        }
        let directory = match sys::open_path(parent, name.as_c_str()) {
            Ok(directory) => directory,
            // Removed since it was listed; nobody removes what is in use.
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(errno) => return Err(Doubt::unreadable(path, errno)),
        };
        let (found, below) = self.list(&directory, path)?;
        if let Some((_, place)) = found.first() {
            return Ok(Some(place));
        }
        for name in below {
            let path = path.join(name.to_string_lossy().as_ref());
            if let Some(place) = self.within(&directory, &name, &path, depth + 1)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    fn list(&self, directory: &OwnedFd, path: &Path) -> Result<Listed<'a>, Doubt> {
        let wrap = |errno| Doubt::unreadable(path, errno);
        let (mut found, mut below) = (Vec::new(), Vec::new());
        sys::list(sys::open_dir(directory, ".").map_err(wrap)?, wrap, |entry| {
            let name = entry.file_name();
            let (mut kind, mut inode) = (entry.file_type(), entry.ino());
            if self.overlay || kind.is_none() {
                match sys::status(directory.as_fd(), name) {
                    Ok(status) => {
                        kind = sys::is_directory(&status).then_some(Type::Directory);
                        inode = status.st_ino;
                    }
                    Err(Errno::ENOENT) => return Ok(()),
                    Err(errno) => return Err(wrap(errno)),
                }
            }
            if let Some(place) = self.wanted.get(&inode) {
                found.push((name.to_owned(), place));
            } else if kind == Some(Type::Directory) {
                below.push(name.to_owned());
            }
            Ok(())
        })?;
        Ok((found, below))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use nix::fcntl::AT_FDCWD;

    use super::*;

    fn found(store: &Path, wanted: &[PathBuf], overlay: bool) -> Vec<char> {
        let wanted =
            wanted.iter().map(|path| (fs::symlink_metadata(path).unwrap().ino(), path.clone())).collect();
        let mut roots = Roots::new();
        find(sys::open_path(AT_FDCWD, store).unwrap(), &wanted, overlay, &mut roots).unwrap();
        let mut found: Vec<_> = roots.paths().map(|path| char::from(path.base_name()[0])).collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn by_inode_wherever_it_lies() {
        let top = tempfile::tempdir().unwrap();
        let path = |c: char| top.path().join(format!("{}-x", c.to_string().repeat(32)));
        for c in ['a', 'b', 'c', 'd'] {
            fs::create_dir_all(path(c).join("share/deep/er")).unwrap();
            fs::write(path(c).join("share/deep/file"), "").unwrap();
        }
        fs::write(path('f'), "").unwrap();
        fs::create_dir(top.path().join(".links")).unwrap();
        fs::hard_link(path('a').join("share/deep/file"), path('d').join("er")).unwrap();
        fs::write(top.path().join(".links/other"), "").unwrap();
        for overlay in [false, true] {
            let found = |wanted: &[PathBuf]| found(top.path(), wanted, overlay);
            assert_eq!(found(&[path('a').join("share/deep/file")]), ['a', 'd'], "two names of one file");
            assert_eq!(found(&[path('b').join("share/deep/er"), path('c')]), ['b', 'c'], "directories");
            assert_eq!(found(&[path('f')]), ['f'], "a file that is a store path");
            assert_eq!(
                found(&[top.path().join(".links/other"), top.path().to_owned()]),
                [],
                "in no store path"
            );
        }
    }
}
