//! An empty file for what a job says.
//!
//! launchd opens it for the job; the file is there already so that it does not matter as whom, and lies in a directory of root's, so that the job
//! cannot put a link in its place.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host, gid_of, show, uid_of};
use crate::system::files;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateLog {
    /// The file.
    pub path: PathBuf,
    /// Who writes to it, by name.
    pub owner: String,
    /// Its group, by name.
    pub group: String,
}

impl Act for CreateLog {
    type Before = ();

    fn changes(&self) -> String {
        format!("makes the log {} ({}:{} 0644)", show(&self.path), self.owner, self.group)
    }

    fn undone_by(&self) -> String {
        "removes it with what it says".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("cannot look at {}", show(&self.path))),
            Ok(found) if found.is_file() && found.uid() == uid_of(&self.owner)? => Ok(true),
            Ok(_) => bail!("{} is in the way: move it away first", show(&self.path)),
        }
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, _: &Host<'_>, (): &()) -> Result<()> {
        let context = || format!("cannot make {}", show(&self.path));
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
        let file = options.open(&self.path).with_context(context)?;
        fchown(&file, Some(uid_of(&self.owner)?), Some(gid_of(&self.group)?)).with_context(context)?;
        file.set_permissions(fs::Permissions::from_mode(0o644)).with_context(context)?;
        files::sync_parent(&self.path).with_context(context)
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        files::remove(&self.path).with_context(|| format!("cannot remove {}", show(&self.path)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_host::host;
    use super::*;

    #[test]
    fn it_comes_and_goes_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let path = dir.path().join("log");
        let action = CreateLog { path: path.clone(), owner: "root".to_owned(), group: "root".to_owned() };
        for _ in 0..2 {
            action.apply(&host, &()).unwrap();
        }
        fs::write(&path, "a line\n").unwrap();
        assert!(action.is_done(&host).unwrap());
        for _ in 0..2 {
            action.undo(&host, &()).unwrap();
            assert!(path.symlink_metadata().is_err());
        }
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(action.is_done(&host).is_err() && action.apply(&host, &()).is_err());
    }
}
