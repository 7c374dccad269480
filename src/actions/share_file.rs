//! A file of root's that a group may read from now on.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use nix::libc;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::drift::{Aspect, Drift, Repair};
use super::{Act, Host, gid_of, show};
use crate::system::checkpoint;
use crate::system::files::Ownership;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareFile {
    /// A regular file, which is no link; its parents are root's.
    pub path: PathBuf,
    /// The group, by name.
    pub group: String,
}

/// What it was.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Was {
    gid: u32,
    mode: u32,
}

impl ShareFile {
    const READ: u32 = 0o040;

    fn open(&self) -> Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&self.path)
            .with_context(|| format!("cannot open {}", show(&self.path)))?;
        let metadata = file.metadata().with_context(|| format!("cannot look at {}", show(&self.path)))?;
        if !metadata.is_file() || metadata.uid() != 0 {
            bail!("{} is not a regular file of root's: it is not shared", show(&self.path));
        }
        Ok(file)
    }

    fn now(&self) -> Result<Was> {
        let metadata =
            self.open()?.metadata().with_context(|| format!("cannot look at {}", show(&self.path)))?;
        let Ownership { gid, mode, .. } = Ownership::of(&metadata);
        Ok(Was { gid, mode })
    }

    fn set(&self, to: Was) -> Result<()> {
        let context = || format!("cannot change the group of {}", show(&self.path));
        let file = self.open()?;
        for now in self.now()?.on_the_way(to) {
            fchown(&file, None, Some(now.gid)).with_context(context)?;
            checkpoint::inside("owner-set");
            file.set_permissions(Permissions::from_mode(now.mode)).with_context(context)?;
            checkpoint::inside("mode-set");
        }
        file.sync_all().with_context(context)
    }
}

impl Was {
    /// What it is in turn until it is `to`: meanwhile neither group may do what only the other one may.
    fn on_the_way(self, to: Self) -> [Self; 3] {
        let mode = self.mode & to.mode;
        [Self { mode, ..self }, Self { mode, ..to }, to]
    }
}

impl Act for ShareFile {
    type Before = Was;

    fn changes(&self) -> String {
        format!("lets the group {} read {}", self.group, show(&self.path))
    }

    fn undone_by(&self) -> String {
        "gives back group and mode".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        let now = self.now()?;
        Ok(now.gid == gid_of(&self.group)? && now.mode & Self::READ != 0)
    }

    fn look_for_drift(&self, host: &Host<'_>, _: Option<&Was>) -> Result<Vec<Drift>> {
        if self.path.symlink_metadata().is_err() || self.is_done(host)? {
            return Ok(Vec::new());
        }
        let found = format!("the group {} cannot read it any more", self.group);
        Ok(vec![Drift::new(&self.path, Aspect::Owner, found, Repair::Again)])
    }

    fn capture(&self, _: &Host<'_>) -> Result<Was> {
        self.now()
    }

    fn apply(&self, _: &Host<'_>, was: &Was) -> Result<()> {
        // What the old group could do, it was root's group that could.
        self.set(Was { gid: gid_of(&self.group)?, mode: was.mode & !0o020 | Self::READ })
    }

    fn undo(&self, _: &Host<'_>, was: &Was) -> Result<()> {
        match self.path.try_exists() {
            Ok(false) => Ok(()),
            _ => self.set(*was),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_host::host;
    use super::*;

    #[test]
    fn no_group_gets_more_on_the_way() {
        for (mode, shared) in [(0o664, 0o640), (0o600, 0o640), (0o4620, 0o640)] {
            let (was, ours) = (Was { gid: 0, mode }, Was { gid: 7, mode: shared });
            for (from, to) in [(was, ours), (ours, was)] {
                let [lessened, given, end] = from.on_the_way(to);
                assert_eq!(
                    (lessened.gid, given.gid),
                    (from.gid, to.gid),
                    "the mode changes before the group"
                );
                assert_eq!((lessened.mode, lessened.mode & !(from.mode & to.mode)), (given.mode, 0));
                assert_eq!((end.gid, end.mode), (to.gid, to.mode));
            }
        }
    }

    #[test]
    fn mode_goes_and_comes_back_and_a_link_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (host, path) = (host(dir.path()), dir.path().join("netrc"));
        std::fs::write(&path, "secret").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let action = ShareFile { path: path.clone(), group: "nogroup".to_owned() };
        let was = action.capture(&host).unwrap();
        for _ in 0..2 {
            action.apply(&host, &was).unwrap();
        }
        let now = action.now().unwrap();
        assert_eq!((now.gid, now.mode), (gid_of("nogroup").unwrap(), 0o640));
        assert!(action.is_done(&host).unwrap());
        action.undo(&host, &was).unwrap();
        let now = action.now().unwrap();
        assert_eq!((now.gid, now.mode), (0, 0o600));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(ShareFile { path: link, group: "nogroup".to_owned() }.capture(&host).is_err());
    }
}
