//! A directory.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, fsync, mkdirat};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conflict::{Conflict, Keep, Present, Scan, put_aside, undecided};
use super::drift::{self, Aspect, Drift, Repair};
use super::set_owner::SetOwner;
use super::{Act, Action, Host, gid_of, show, uid_of};
use crate::system::files::Ownership;
use crate::system::{checkpoint, files, trees};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
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
    /// With `with_contents`: what is not a cache is put aside in the run's backups instead of being removed.
    #[serde(default)]
    pub keep_contents: bool,
    /// Whose it becomes by a later step, which re-owns all that is there: one that is made anew is theirs at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub later: Option<Owner>,
}

/// Somebody, by name.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The user.
    pub user: String,
    /// The group.
    pub group: String,
}

impl Act for CreateDirectory {
    type Before = ();

    fn changes(&self) -> String {
        format!("makes the directory {} ({}:{} {})", show(&self.path), self.owner, self.group, self.mode)
    }

    fn undone_by(&self) -> String {
        match (self.with_contents, self.keep_contents) {
            (_, true) => "removes it; what is in it and no cache is put aside".to_owned(),
            (true, _) => "removes it with what it holds".to_owned(),
            _ => "removes it when it is empty".to_owned(),
        }
    }

    fn look_for_conflicts(&self, scan: &mut Scan<'_>, (): &()) -> Result<()> {
        if self.is_disposable() {
            return Ok(());
        }
        let now = Present::at(&self.path)?;
        if !matches!(now, Present::Absent | Present::Directory) {
            scan.conflict(Conflict {
                path: self.path.clone(),
                reason: "somebody else put it in the place of the directory".to_owned(),
                before: Present::Absent.version(),
                ours: Present::Directory.version(),
                now: now.version(),
                digest: now.digest(),
            });
        }
        Ok(())
    }

    /// Of one that was there before, the owner counts; below `/nix`, the mode of what the daemon owns is the daemon's to change.
    fn look_for_drift(&self, _: &Host<'_>, before: Option<&()>) -> Result<Vec<Drift>> {
        let one = |aspect, found: String, repair| Ok(vec![Drift::new(&self.path, aspect, found, repair)]);
        let now = match Present::at(&self.path)? {
            Present::Directory => Ownership::of(&fs::symlink_metadata(&self.path)?),
            Present::Absent => return one(Aspect::Content, "it is gone".to_owned(), self.anew()),
            other => {
                let found = format!("in its place there is {}", other.version().what);
                let remedy = "move it away, and look again".to_owned();
                return one(Aspect::Content, found, Repair::Never(remedy));
            }
        };
        let wanted =
            Ownership { uid: uid_of(&self.owner)?, gid: gid_of(&self.group)?, mode: octal(&self.mode)? };
        let is_kept = now.uid == wanted.uid
            && (before.is_none()
                || (now.gid == wanted.gid
                    && (now.mode == wanted.mode || (wanted.uid != 0 && self.path.starts_with("/nix")))));
        if is_kept {
            return Ok(Vec::new());
        }
        // Not this step again: undoing it would remove the directory.
        let owner = SetOwner {
            path: self.path.clone(),
            owner: self.owner.clone(),
            group: self.group.clone(),
            mode: self.mode.clone(),
        };
        let repair = Repair::By(Box::new(Action::SetOwner(owner)));
        one(Aspect::Owner, drift::belongs(now, wanted), repair)
    }

    fn decides(&self, path: &Path, aspect: Aspect) -> bool {
        path == self.path && aspect == Aspect::Content
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

    /// By descriptors, since below `/nix` it may lie in what is somebody else's; and the owner comes last, who may then do with it as he
    /// likes.
    fn apply(&self, _: &Host<'_>, (): &()) -> Result<()> {
        let context = || format!("cannot make the directory {}", show(&self.path));
        let (parent, name) = files::open_parent(&self.path).with_context(context)?;
        match mkdirat(&parent, name, Mode::RWXU) {
            Err(error) if error != Errno::EXIST => return Err(error).with_context(context),
            _ => {}
        }
        checkpoint::inside("directory-made");
        let directory = files::open_directory_in(&parent, name).with_context(context)?;
        directory.set_permissions(Permissions::from_mode(octal(&self.mode)?)).with_context(context)?;
        checkpoint::inside("mode-set");
        fchown(&directory, Some(uid_of(&self.owner)?), Some(gid_of(&self.group)?)).with_context(context)?;
        fsync(&parent).with_context(context)
    }

    fn undo(&self, host: &Host<'_>, (): &()) -> Result<()> {
        if files::open_parent(&self.path).is_err_and(|error| files::is_diverted(&error)) {
            let path = show(&self.path);
            host.observer
                .note(&format!("on the way to {path} there is a link; what is behind it stays as it is"));
            return Ok(());
        }
        let Some(kind) = Present::kind_at(&self.path)? else {
            // Removing what is not there fails on a file system that is read-only.
            return Ok(());
        };
        if self.is_disposable() {
            return self.remove_whatever_it_is();
        }
        if !kind.is_dir() {
            let now = Present::at(&self.path)?;
            return match host.choices.of(&self.path, &now) {
                Some(Keep::Theirs) => Ok(()),
                Some(Keep::Ours) => {
                    put_aside(&self.path, &now, host)?;
                    files::remove(&self.path).with_context(|| format!("cannot remove {}", show(&self.path)))
                }
                None => bail!(undecided(&self.path)),
            };
        }
        if self.with_contents {
            self.put_contents_aside(host)?;
            return self.remove_whatever_it_is();
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                host.observer.note(&format!("{} is not empty and stays", show(&self.path)));
                Ok(())
            }
            other => other.with_context(|| format!("cannot remove the directory {}", show(&self.path))),
        }
    }
}

impl CreateDirectory {
    /// What makes it when it is gone.
    fn anew(&self) -> Repair {
        let Some(Owner { user, group }) = self.later.clone() else { return Repair::Again };
        Repair::By(Box::new(Action::CreateDirectory(Self {
            owner: user,
            group,
            later: None,
            ..self.clone()
        })))
    }

    /// Whether nothing of it is worth a question: below `/nix` the daemon's user may put a link in its place.
    fn is_disposable(&self) -> bool {
        self.with_contents && !self.keep_contents
    }

    fn remove_whatever_it_is(&self) -> Result<()> {
        // An empty one needs no program.
        if fs::remove_dir(&self.path).is_err() {
            trees::remove(&self.path)
                .with_context(|| format!("cannot remove the directory {}", show(&self.path)))?;
        }
        files::sync_parent(&self.path).with_context(|| format!("cannot remove {}", show(&self.path)))
    }

    /// Caches can be made again; whatever else is in it may be somebody's only copy.
    fn put_contents_aside(&self, host: &Host<'_>) -> Result<()> {
        let context = || format!("cannot read {}", show(&self.path));
        for entry in fs::read_dir(&self.path).with_context(context)? {
            if entry.with_context(context)?.file_name() != CACHE {
                // All of it, to a directory that only root can enter.
                return put_aside(&self.path, &Present::Directory, host);
            }
        }
        Ok(())
    }
}

/// What programs keep in a home and can make again.
const CACHE: &str = ".cache";

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
    use super::super::test_host::{chosen, conflicts, host};
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
                keep_contents: false,
                later: None,
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

    /// What somebody puts there since it was looked at.
    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, target) = (dir.path().join("new"), dir.path().join("target"));
        fs::create_dir(&target).unwrap();
        fs::set_permissions(&target, Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let action = CreateDirectory {
            path,
            owner: root(),
            group: root(),
            mode: "0755".to_owned(),
            with_contents: false,
            keep_contents: false,
            later: None,
        };
        action.apply(&host(dir.path()), &()).unwrap_err();
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn caches_go_and_the_rest_is_put_aside() {
        for (name, is_kept) in [(".cache", false), (".ssh", true)] {
            let dir = tempfile::tempdir().unwrap();
            let host = host(dir.path());
            fs::create_dir(&host.backups).unwrap();
            let action = CreateDirectory {
                path: dir.path().join("home"),
                owner: root(),
                group: root(),
                mode: "0700".to_owned(),
                with_contents: true,
                keep_contents: true,
                later: None,
            };
            action.apply(&host, &()).unwrap();
            fs::create_dir(action.path.join(name)).unwrap();
            for _ in 0..2 {
                action.undo(&host, &()).unwrap();
                assert!(!action.path.exists());
            }
            assert_eq!(host.backups.join("put-aside-home").join(name).exists(), is_kept);
        }
    }

    #[test]
    fn a_link_in_its_place_needs_a_choice() {
        for keep in [Keep::Theirs, Keep::Ours] {
            let dir = tempfile::tempdir().unwrap();
            let nobody_asked = host(dir.path());
            fs::create_dir(&nobody_asked.backups).unwrap();
            let (path, elsewhere) = (dir.path().join("home"), dir.path().join("elsewhere"));
            fs::create_dir(&elsewhere).unwrap();
            fs::write(elsewhere.join("file"), "").unwrap();
            std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
            let action = CreateDirectory {
                path: path.clone(),
                owner: root(),
                group: root(),
                mode: "0700".to_owned(),
                with_contents: true,
                keep_contents: true,
                later: None,
            };
            assert!(action.undo(&nobody_asked, &()).is_err());
            let found = conflicts(dir.path(), &action, &());
            action.undo(&chosen(dir.path(), &found[0], keep), &()).unwrap();
            assert_eq!(path.is_symlink(), keep == Keep::Theirs);
            assert!(elsewhere.join("file").exists());
        }
    }

    #[test]
    fn the_daemons_own_directory_goes_whatever_it_became_and_however_deep_it_is() {
        for deep in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let host = host(dir.path());
            let (path, elsewhere) = (dir.path().join("builds"), dir.path().join("elsewhere"));
            fs::create_dir(&elsewhere).unwrap();
            fs::write(elsewhere.join("file"), "").unwrap();
            if deep {
                let script = "for (0..4999) { mkdir 'deep-down' or die; chdir 'deep-down' }";
                fs::create_dir(&path).unwrap();
                let made =
                    std::process::Command::new("perl").args(["-e", script]).current_dir(&path).status();
                assert!(made.unwrap().success());
            } else {
                std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
            }
            let action = CreateDirectory {
                path: path.clone(),
                owner: root(),
                group: root(),
                mode: "0755".to_owned(),
                with_contents: true,
                keep_contents: false,
                later: None,
            };
            assert!(conflicts(dir.path(), &action, &()).is_empty());
            for _ in 0..2 {
                action.undo(&host, &()).unwrap();
                assert!(fs::symlink_metadata(&path).is_err());
            }
            assert!(elsewhere.join("file").exists());
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
