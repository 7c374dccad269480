//! Owner, group and mode of one directory.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::create_directory::octal;
use super::drift::{self, Aspect, Drift, Repair};
use super::{Act, Host, gid_of, show, uid_of};
use crate::system::checkpoint;
use crate::system::files::{self, Ownership, open_directory_in, open_parent};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetOwner {
    /// A directory, which is no link.
    pub path: PathBuf,
    /// Owner, by name.
    pub owner: String,
    /// Group, by name.
    pub group: String,
    /// Permission bits in octal.
    pub mode: String,
}

/// What it was.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Was {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl SetOwner {
    fn try_open(&self) -> io::Result<File> {
        let (parent, name) = open_parent(&self.path)?;
        Ok(open_directory_in(&parent, name)?)
    }

    fn open(&self) -> Result<File> {
        self.try_open().with_context(|| format!("cannot open the directory {}", show(&self.path)))
    }

    fn set(&self, ownership: Ownership) -> Result<()> {
        let context = || format!("cannot change the owner of {}", show(&self.path));
        let directory = self.open()?;
        fchown(&directory, Some(ownership.uid), Some(ownership.gid)).with_context(context)?;
        checkpoint::inside("owner-set");
        directory.set_permissions(Permissions::from_mode(ownership.mode)).with_context(context)?;
        directory.sync_all().with_context(context)
    }

    fn now(&self) -> Result<Ownership> {
        let metadata =
            self.open()?.metadata().with_context(|| format!("cannot look at {}", show(&self.path)))?;
        Ok(Ownership::of(&metadata))
    }

    fn wanted(&self) -> Result<Ownership> {
        Ok(Ownership { uid: uid_of(&self.owner)?, gid: gid_of(&self.group)?, mode: octal(&self.mode)? })
    }
}

impl Act for SetOwner {
    type Before = Was;

    fn changes(&self) -> String {
        format!("gives {} to {}:{} with mode {}", show(&self.path), self.owner, self.group, self.mode)
    }

    fn undone_by(&self) -> String {
        "gives back owner, group and mode".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(self.now()? == self.wanted()?)
    }

    fn capture(&self, _: &Host<'_>) -> Result<Was> {
        let Ownership { uid, gid, mode } = self.now()?;
        Ok(Was { uid, gid, mode })
    }

    fn apply(&self, _: &Host<'_>, _: &Was) -> Result<()> {
        self.set(self.wanted()?)
    }

    /// Owner, group and mode each go back, unless somebody else changed just that since.
    fn undo(&self, host: &Host<'_>, was: &Was) -> Result<()> {
        // What somebody put in its place must not stop a way back. One that is missing does: `/nix` may not be mounted.
        if let Err(error) = self.try_open()
            && files::is_diverted(&error)
        {
            let path = show(&self.path);
            host.observer
                .note(&format!("{path} is not the directory that it was ({error}): its owner stays"));
            return Ok(());
        }
        let now = self.now()?;
        // Without the accounts nobody can tell what was ours, and what belongs to nobody is to go back.
        let Ok(ours) = self.wanted() else {
            return self.set(Ownership { uid: was.uid, gid: was.gid, mode: was.mode });
        };
        let back = |now, ours, was| if now == ours { was } else { now };
        let after = Ownership {
            uid: back(now.uid, ours.uid, was.uid),
            gid: back(now.gid, ours.gid, was.gid),
            mode: back(now.mode, ours.mode, was.mode),
        };
        if after != (Ownership { uid: was.uid, gid: was.gid, mode: was.mode }) {
            host.observer.note(&format!(
                "somebody changed owner or mode of {} since; that stays: {}:{} {:04o} (it was {}:{} {:04o})",
                show(&self.path),
                after.uid,
                after.gid,
                after.mode,
                was.uid,
                was.gid,
                was.mode
            ));
        }
        self.set(after)
    }

    fn look_for_drift(&self, _: &Host<'_>, _: Option<&Was>) -> Result<Vec<Drift>> {
        if self.path.symlink_metadata().is_err() {
            // The step that made it says so.
            return Ok(Vec::new());
        }
        let (now, wanted) = (self.now()?, self.wanted()?);
        let drift = || Drift::new(&self.path, Aspect::Owner, drift::belongs(now, wanted), Repair::Again);
        Ok((now != wanted).then(drift).into_iter().collect())
    }

    fn decides(&self, path: &Path, aspect: Aspect) -> bool {
        path == self.path && aspect == Aspect::Owner
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_host::host;
    use super::*;

    #[test]
    fn what_is_no_directory_any_more_does_not_stop_a_way_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("directory");
        let action = SetOwner {
            path: path.clone(),
            owner: "root".to_owned(),
            group: "root".to_owned(),
            mode: "0700".to_owned(),
        };
        let was = Was { uid: 0, gid: 0, mode: 0 };
        assert!(action.undo(&host(dir.path()), &was).is_err(), "it may be there tomorrow");
        std::fs::write(&path, "").unwrap();
        action.undo(&host(dir.path()), &was).unwrap();
        std::fs::remove_file(&path).unwrap();
        let target = dir.path().join("target");
        std::fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        action.undo(&host(dir.path()), &was).unwrap();
        assert_ne!(std::fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0);
    }

    #[test]
    fn a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link");
        std::os::unix::fs::symlink("/etc", &path).unwrap();
        let action =
            SetOwner { path, owner: "root".to_owned(), group: "root".to_owned(), mode: "0700".to_owned() };
        assert!(action.apply(&host(dir.path()), &Was { uid: 0, gid: 0, mode: 0 }).is_err());
    }

    #[test]
    fn what_somebody_else_changed_stays_and_the_rest_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("directory");
        std::fs::create_dir(&path).unwrap();
        let action = SetOwner {
            path: path.clone(),
            owner: "root".to_owned(),
            group: "root".to_owned(),
            mode: "1775".to_owned(),
        };
        let host = host(dir.path());
        let was = Was { uid: 0, gid: 7, mode: 0o755 };
        action.apply(&host, &was).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
        action.undo(&host, &was).unwrap();
        assert_eq!(action.now().unwrap(), Ownership { uid: 0, gid: 7, mode: 0o750 });
    }

    #[test]
    fn mode_goes_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("directory");
        std::fs::create_dir(&path).unwrap();
        let action =
            SetOwner { path, owner: "root".to_owned(), group: "root".to_owned(), mode: "1775".to_owned() };
        let host = host(dir.path());
        let was = action.capture(&host).unwrap();
        action.apply(&host, &was).unwrap();
        assert!(action.is_done(&host).unwrap());
        action.undo(&host, &was).unwrap();
        assert_eq!(action.now().unwrap().mode, was.mode);
    }
}
