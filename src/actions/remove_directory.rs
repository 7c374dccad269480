//! A directory goes when it is empty.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host, show};
use crate::system::files::{self, Ownership};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveDirectory {
    /// The directory.
    pub path: PathBuf,
}

/// Owner, group and permission bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Act for RemoveDirectory {
    type Before = Before;

    fn changes(&self) -> String {
        format!("removes the directory {} when nothing is left in it", show(&self.path))
    }

    fn undone_by(&self) -> String {
        "makes it again".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(!fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.is_dir()))
    }

    fn capture(&self, _: &Host<'_>) -> Result<Before> {
        let metadata = fs::symlink_metadata(&self.path)
            .with_context(|| format!("cannot look at {}", show(&self.path)))?;
        let Ownership { uid, gid, mode } = Ownership::of(&metadata);
        Ok(Before { uid, gid, mode })
    }

    fn apply(&self, host: &Host<'_>, _: &Before) -> Result<()> {
        let context = || format!("cannot remove the directory {}", show(&self.path));
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                host.observer.note(&format!("{} is not empty and stays", show(&self.path)));
                Ok(())
            }
            other => other.and_then(|()| files::sync_parent(&self.path)).with_context(context),
        }
    }

    fn undo(&self, _: &Host<'_>, before: &Before) -> Result<()> {
        if fs::symlink_metadata(&self.path).is_ok() {
            // It stayed, or it is somebody else's by now.
            files::forget_temporary(&self.path);
            return Ok(());
        }
        let Before { uid, gid, mode } = *before;
        files::create_directory(&self.path, Ownership { uid, gid, mode })
            .with_context(|| format!("cannot make the directory {}", show(&self.path)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::super::test_host::host;
    use super::*;

    #[test]
    fn only_an_empty_directory_goes() {
        for (filled, mode) in [(false, 0o555), (true, 0o750)] {
            let dir = tempfile::tempdir().unwrap();
            let host = host(dir.path());
            let action = RemoveDirectory { path: dir.path().join("directory") };
            assert!(action.is_done(&host).unwrap());
            fs::create_dir(&action.path).unwrap();
            if filled {
                fs::write(action.path.join("key"), "").unwrap();
            }
            fs::set_permissions(&action.path, Permissions::from_mode(mode)).unwrap();
            let before = action.capture(&host).unwrap();
            for _ in 0..2 {
                action.apply(&host, &before).unwrap();
                assert_eq!(action.path.exists(), filled);
            }
            for _ in 0..2 {
                action.undo(&host, &before).unwrap();
                assert_eq!(action.capture(&host).unwrap(), before);
                // A kill between making it and its mode leaves nothing that a second attempt takes for it.
                fs::create_dir(dir.path().join(".directory.nix-unroot-new")).unwrap();
            }
            action.undo(&host, &before).unwrap();
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }
}
