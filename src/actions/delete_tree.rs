//! The store goes, with all that is in it.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host, show};
use crate::system::{files, trees};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteTree {
    /// The directory.
    pub path: PathBuf,
}

impl Act for DeleteTree {
    type Before = ();

    fn changes(&self) -> String {
        format!("deletes {} with all that is in it", show(&self.path))
    }

    fn undone_by(&self) -> String {
        "cannot be undone".to_owned()
    }

    fn is_irrevocable(&self) -> bool {
        true
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(fs::symlink_metadata(&self.path).is_err())
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    /// Leaves alone what is mounted below. A directory that is a mount point itself is emptied and stays.
    fn apply(&self, host: &Host<'_>, (): &()) -> Result<()> {
        let context = || format!("cannot delete {}", show(&self.path));
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.with_context(context)?,
        };
        for entry in entries {
            let entry = entry.with_context(context)?.path();
            trees::remove(&entry).with_context(|| format!("cannot delete {}", show(&entry)))?;
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                let path = show(&self.path);
                host.observer.note(&format!(
                    "{path} is a mount point: it is empty now and stays, as does its line in /etc/fstab"
                ));
                Ok(())
            }
            other => other.and_then(|()| files::sync_parent(&self.path)).with_context(context),
        }
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        super::irrevocable(&self.changes())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_host::host;
    use super::*;

    #[test]
    fn a_deep_tree_with_links_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("file"), "").unwrap();
        let action = DeleteTree { path: dir.path().join("nix") };
        let mut deep = action.path.join("store");
        fs::create_dir_all(&deep).unwrap();
        std::os::unix::fs::symlink(&outside, deep.join("link")).unwrap();
        for _ in 0..200 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        for _ in 0..2 {
            action.apply(&host, &()).unwrap();
            assert!(action.is_done(&host).unwrap());
        }
        assert!(outside.join("file").exists());
        assert!(action.undo(&host, &()).unwrap_err().to_string().contains("cannot be undone"));
    }
}
