//! A file of root's that a group may read from now on.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::ErrorKind;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        if !Self::is_roots_file(&metadata) {
            bail!("{} is not a regular file of root's: it is not shared", show(&self.path));
        }
        Ok(file)
    }

    fn is_roots_file(metadata: &Metadata) -> bool {
        metadata.is_file() && metadata.uid() == 0
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
    /// The mode of the shared file. What the old group could do, it was root's group that could.
    fn shared(self) -> u32 {
        self.mode & !0o020 | ShareFile::READ
    }

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
        self.set(Was { gid: gid_of(&self.group)?, mode: was.shared() })
    }

    /// Group and mode go back, unless somebody else changed them since. What the mode lets a new group do is theirs, too.
    fn undo(&self, host: &Host<'_>, was: &Was) -> Result<()> {
        match fs::symlink_metadata(&self.path) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Ok(metadata) if !Self::is_roots_file(&metadata) => {
                host.observer.note(&format!(
                    "{} is not a regular file of root's any more; its group and mode stay",
                    show(&self.path)
                ));
                return Ok(());
            }
            Err(error) => return Err(error).with_context(|| format!("cannot look at {}", show(&self.path))),
            Ok(_) => {}
        }
        let now = self.now()?;
        let has_our_group = match gid_of(&self.group) {
            Ok(ours) => [ours, was.gid].contains(&now.gid),
            // Without the group nobody can tell what was ours, and what belongs to nobody is to go back.
            Err(_) => now.gid == was.gid || users::get_group_by_gid(now.gid).is_none(),
        };
        // On the way the mode has what is common to both.
        let has_our_mode = [was.shared(), was.shared() & was.mode].contains(&now.mode);
        let after = match (has_our_group, has_our_mode) {
            (true, true) => *was,
            (true, false) => Was { gid: was.gid, mode: now.mode },
            (false, _) => now,
        };
        if after != *was {
            host.observer.note(&format!(
                "somebody changed group or mode of {} since; that stays: {} {:04o} (it was {} {:04o})",
                show(&self.path),
                after.gid,
                after.mode,
                was.gid,
                was.mode
            ));
        }
        self.set(after)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

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
    fn what_somebody_else_changed_stays_and_the_rest_goes_back() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        // Group and mode that somebody gave it (or a kill left), and those after undoing.
        let ours = gid_of("nogroup").unwrap();
        let rows = [
            ((ours, 0o640), (0, 0o600)),
            ((ours, 0o600), (0, 0o600)),
            ((ours, 0o644), (0, 0o644)),
            ((7, 0o640), (7, 0o640)),
            ((7, 0o660), (7, 0o660)),
        ];
        for ((gid, mode), after) in rows {
            let dir = tempfile::tempdir().unwrap();
            let (host, path) = (host(dir.path()), dir.path().join("netrc"));
            fs::write(&path, "secret").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let action = ShareFile { path: path.clone(), group: "nogroup".to_owned() };
            let was = action.capture(&host).unwrap();
            action.apply(&host, &was).unwrap();
            chown(&path, None, Some(gid)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            for _ in 0..2 {
                action.undo(&host, &was).unwrap();
                let now = action.now().unwrap();
                assert_eq!((now.gid, now.mode), after, "{gid} {mode:o}");
            }
            // A file of somebody else's, and a link.
            chown(&path, Some(7), None).unwrap();
            action.undo(&host, &was).unwrap();
            fs::rename(&path, dir.path().join("target")).unwrap();
            std::os::unix::fs::symlink("target", &path).unwrap();
            action.undo(&host, &was).unwrap();
            assert!(path.is_symlink());
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
