//! Writing a page where somebody says, who may be root in a directory of somebody else.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::system::kernel;

/// Writes the text so that `path` holds what it held, or all of it. No link is followed, wherever it lies on the way: it could be
/// somebody else's, and lead where the caller alone may write. What is no file is not replaced.
///
/// The file belongs to the caller, who alone may read it: findings may tell what only root can see.
///
/// # Errors
/// When the file cannot be written; then what was there is as it was.
pub fn save(path: &Path, text: &str) -> Result<()> {
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
        bail!("{} is not the name of a file", path.display());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let whole = std::path::absolute(parent).context("there is no current directory")?;
    let directory = match kernel::open_dir(&whole) {
        Err(nix::errno::Errno::ELOOP) => bail!(
            "cannot write {}: there is a symbolic link on the way, and links are not followed: name the place itself (realpath {})",
            path.display(),
            parent.display()
        ),
        other => other.with_context(|| format!("cannot open the directory {}", parent.display()))?,
    };
    match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) if FileType::from_raw_mode(there.st_mode) != FileType::RegularFile => bail!(
            "cannot write {}: it is no regular file, and a report would take its place: name another one",
            path.display()
        ),
        Ok(_) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error).with_context(|| format!("cannot look at {}", path.display())),
    }
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.nix-unroot-new", std::process::id()));
    let write = || -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, &temporary, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(file);
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        rustix::fs::renameat(&directory, &temporary, &directory, name)?;
        Ok(rustix::fs::fsync(&directory)?)
    };
    write()
        .inspect_err(|error| {
            // Somebody else's file of that name is not ours to remove.
            if error.kind() != io::ErrorKind::AlreadyExists {
                let _ = rustix::fs::unlinkat(&directory, &temporary, AtFlags::empty());
            }
        })
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn a_page_is_written_whole_and_is_the_callers_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("page.html");
        fs::write(&path, "old").unwrap();
        save(&path, "one").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.mode() & 0o777, metadata.uid()), (0o600, nix::unistd::geteuid().as_raw()));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn no_link_is_followed_and_nothing_but_a_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("real")).unwrap();
        fs::write(root.join("real/kept"), "kept").unwrap();
        symlink("real", root.join("link")).unwrap();
        symlink("kept", root.join("real/alias")).unwrap();
        for (path, part) in [
            ("link/page.html", "symbolic link"),
            ("real/alias", "no regular file"),
            ("real", "no regular file"),
            ("missing/page.html", "missing"),
            ("real/..", "not the name of a file"),
        ] {
            let said = format!("{:#}", save(&root.join(path), "x").unwrap_err());
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(fs::read_to_string(root.join("real/kept")).unwrap(), "kept");
        assert_eq!(fs::read_dir(root.join("real")).unwrap().count(), 2, "nothing is left beside");
    }
}
