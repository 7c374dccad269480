//! A directory.

use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::{Act, Host, gid_of, show, uid_of};
use crate::system::files;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateDirectory {
    /// The directory; its parent exists, or is made by an earlier step.
    pub path: PathBuf,
    /// Owner, by name.
    #[serde(default = "root")]
    pub owner: String,
    /// Group, by name.
    #[serde(default = "root")]
    pub group: String,
    /// Permission bits in octal: `0755`.
    pub mode: String,
    /// Whether what was put into it since goes with it. Otherwise a directory that is not empty stays.
    #[serde(default)]
    pub with_contents: bool,
}

impl Act for CreateDirectory {
    type Before = ();

    fn changes(&self) -> String {
        format!("makes the directory {} ({}:{} {})", show(&self.path), self.owner, self.group, self.mode)
    }

    fn undone_by(&self) -> String {
        match self.with_contents {
            true => "removes it with what it holds".to_owned(),
            false => "removes it when it is empty".to_owned(),
        }
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) if metadata.is_dir() && metadata.uid() == uid_of(&self.owner)? => Ok(true),
            Ok(metadata) if metadata.is_dir() => bail!(
                "{} is there already and belongs to uid {}, not to {}: move it away first",
                show(&self.path),
                metadata.uid(),
                self.owner
            ),
            Ok(_) => bail!("{} is in the way: it is not a directory; move it away first", show(&self.path)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot look at {}", show(&self.path))),
        }
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, _: &Host<'_>, (): &()) -> Result<()> {
        let context = || format!("cannot make the directory {}", show(&self.path));
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(context);
            }
            _ => {}
        }
        lchown(&self.path, Some(uid_of(&self.owner)?), Some(gid_of(&self.group)?)).with_context(context)?;
        fs::set_permissions(&self.path, Permissions::from_mode(octal(&self.mode)?)).with_context(context)?;
        files::sync_parent(&self.path).with_context(context)
    }

    fn undo(&self, host: &Host<'_>, (): &()) -> Result<()> {
        // remove_dir_all goes by directory descriptors and follows no link, so its contents may be hostile.
        let removed = match self.with_contents {
            true => fs::remove_dir_all(&self.path),
            false => fs::remove_dir(&self.path),
        };
        match removed {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                host.observer.note(&format!("{} is not empty and stays", show(&self.path)));
                Ok(())
            }
            other => other.with_context(|| format!("cannot remove the directory {}", show(&self.path))),
        }
    }
}

/// Permission bits from octal digits.
pub(super) fn octal(mode: &str) -> Result<u32> {
    u32::from_str_radix(mode, 8)
        .ok()
        .filter(|bits| *bits <= 0o7777)
        .with_context(|| format!("{mode:?} is not a mode such as 0755"))
}

fn root() -> String {
    "root".to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::test_host::host;
    use super::*;

    #[test]
    fn a_filled_directory_stays_unless_its_contents_are_ours() {
        for with_contents in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let host = host(dir.path());
            let path = dir.path().join("new");
            let action = CreateDirectory {
                path: path.clone(),
                owner: root(),
                group: root(),
                mode: "1750".to_owned(),
                with_contents,
            };
            assert!(!action.is_done(&host).unwrap());
            action.apply(&host, &()).unwrap();
            action.apply(&host, &()).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o1750);
            fs::write(path.join("file"), "").unwrap();
            action.undo(&host, &()).unwrap();
            assert_eq!(path.exists(), !with_contents);
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(octal("0755").unwrap(), 0o755);
        for bad in ["", "789", "10000", "rwx", "-1"] {
            assert!(octal(bad).is_err(), "{bad:?}");
        }
    }
}
