//! A copy of one of root's files in the home of another user.
//!
//! That user may put a link in the place of anything in his home, at any time, so the way there is walked by directory
//! descriptors that follow none. Of the contents only a digest is remembered: they are secrets, and the original is still there.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat, openat, statat, unlinkat};
use rustix::io::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host, gid_of, show, uid_of};
use crate::system::checkpoint;
use crate::system::files::{open_directory, open_directory_in};
use crate::types::Sha256Digest;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyIntoHome {
    /// The file to copy.
    pub from: PathBuf,
    /// The home; its parents are root's.
    pub home: PathBuf,
    /// A directory in it, one name; a missing one is made.
    pub directory: String,
    /// The copy's name in that.
    pub name: String,
    /// Who will own the copy.
    pub owner: String,
    /// Its group.
    pub group: String,
}

/// What has to go with an undo.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Was {
    directory: bool,
    /// Digest of what is copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    copied: Option<Sha256Digest>,
}

/// No secret is longer, in bytes; what took the place of one may be without end.
const LONGEST: u64 = 16 << 20;

impl CopyIntoHome {
    fn home(&self) -> Result<File> {
        open_directory(&self.home).with_context(|| format!("cannot open the home {}", show(&self.home)))
    }

    /// The directory, when it is there.
    fn directory(&self) -> Result<Option<File>> {
        match open_directory_in(self.home()?, self.directory.as_str()) {
            Err(Errno::NOENT) => Ok(None),
            other => other.map(Some).with_context(|| format!("cannot open {}", self.place())),
        }
    }

    fn place(&self) -> String {
        format!("{}/{}", show(&self.home), self.directory)
    }

    /// Whether the copy in `directory` is what was written there, or the beginning of it. None when there is none.
    fn is_ours(&self, directory: &File, was: &Was) -> Result<Option<bool>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let copy = match openat(directory, self.name.as_str(), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            // A link, a socket.
            Err(Errno::LOOP | Errno::NXIO) => return Ok(Some(false)),
            other => File::from(other?),
        };
        if !copy.metadata()?.is_file() {
            return Ok(Some(false));
        }
        let mut bytes = Vec::new();
        copy.take(LONGEST + 1).read_to_end(&mut bytes)?;
        let is_whole = was.copied.as_ref().is_some_and(|copied| *copied == Sha256Digest::of_bytes(&bytes));
        // Of a run that was killed while it wrote.
        Ok(Some(is_whole || fs::read(&self.from).is_ok_and(|original| original.starts_with(&bytes))))
    }

    fn ids(&self) -> Result<(Option<Uid>, Option<Gid>)> {
        Ok((Some(Uid::from_raw(uid_of(&self.owner)?)), Some(Gid::from_raw(gid_of(&self.group)?))))
    }
}

impl Act for CopyIntoHome {
    type Before = Was;

    fn changes(&self) -> String {
        format!("copies {} to {} for {}", show(&self.from), self.place(), self.owner)
    }

    fn undone_by(&self) -> String {
        "removes the copy".to_owned()
    }

    /// What is there already is somebody's choice and stays.
    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        if self.home.symlink_metadata().is_err() {
            return Ok(false);
        }
        let Some(directory) = self.directory()? else { return Ok(false) };
        Ok(statat(&directory, self.name.as_str(), AtFlags::SYMLINK_NOFOLLOW).is_ok())
    }

    fn capture(&self, _: &Host<'_>) -> Result<Was> {
        // When it cannot be read, it is not copied either.
        let copied = fs::read(&self.from).ok().map(|bytes| Sha256Digest::of_bytes(&bytes));
        Ok(Was { directory: self.directory()?.is_some(), copied })
    }

    fn apply(&self, _: &Host<'_>, was: &Was) -> Result<()> {
        let context = || format!("cannot copy {} to {}", show(&self.from), self.place());
        let bytes = fs::read(&self.from).with_context(context)?;
        let (uid, gid) = self.ids()?;
        let made = match mkdirat(self.home()?, self.directory.as_str(), Mode::from_raw_mode(0o700)) {
            Ok(()) => true,
            // Made by this run before a crash, unless it was there.
            Err(Errno::EXIST) => !was.directory,
            Err(error) => return Err(error).with_context(context),
        };
        checkpoint::inside("directory-made");
        let directory = self.directory()?.with_context(context)?;
        if made {
            fchown(&directory, uid, gid).with_context(context)?;
            checkpoint::inside("owner-set");
        }
        if self.is_ours(&directory, was).with_context(context)? == Some(false) {
            bail!("somebody put {}/{} there meanwhile: move it away, and try again", self.place(), self.name);
        }
        // Half of a copy, from before a crash.
        let _ = unlinkat(&directory, self.name.as_str(), AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let copy = openat(&directory, self.name.as_str(), flags, Mode::from_raw_mode(0o600));
        let mut copy = File::from(copy.with_context(context)?);
        copy.write_all(&bytes).with_context(context)?;
        checkpoint::inside("file-written");
        fchown(&copy, uid, gid).with_context(context)?;
        fchmod(&copy, Mode::from_raw_mode(0o600)).with_context(context)?;
        copy.sync_all().with_context(context)
    }

    /// Somebody may have put something else in the place of what this made, a new key say. That is not removed, and must not stop a way
    /// back: the home's own undoing comes later, and puts away all that is in it.
    fn undo(&self, host: &Host<'_>, was: &Was) -> Result<()> {
        let context = || format!("cannot remove the copy of {} in {}", show(&self.from), self.place());
        if self.home.symlink_metadata().is_err() {
            return Ok(());
        }
        let not_ours = |place: String| {
            host.observer.note(&format!("{place} is not what was made there; it stays as it is"));
            Ok(())
        };
        let home = self.home()?;
        let directory = match open_directory_in(&home, self.directory.as_str()) {
            Err(Errno::NOENT) => return Ok(()),
            Err(error) if is_another_kind(error) => return not_ours(self.place()),
            other => other.with_context(context)?,
        };
        if self.is_ours(&directory, was).with_context(context)? == Some(false) {
            return not_ours(format!("{}/{}", self.place(), self.name));
        }
        match unlinkat(&directory, self.name.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) if is_another_kind(error) => {
                return not_ours(format!("{}/{}", self.place(), self.name));
            }
            Err(error) => return Err(error).with_context(context),
        }
        if !was.directory {
            match unlinkat(&home, self.directory.as_str(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => {}
                Err(error) if is_another_kind(error) => return not_ours(self.place()),
                Err(error) => return Err(error).with_context(context),
            }
        }
        Ok(())
    }
}

/// Whether it says that there is a link or a directory where none was made, or no directory where one was. macOS says
/// `PERM` of a directory that is to be removed as a file (unlink(2)).
fn is_another_kind(error: Errno) -> bool {
    matches!(error, Errno::NOTDIR | Errno::LOOP | Errno::ISDIR)
        || (cfg!(target_os = "macos") && error == Errno::PERM)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;

    use super::super::Observer;
    use super::super::test_host::host;
    use super::*;

    /// What was noted.
    #[derive(Default)]
    struct Notes(std::sync::Mutex<Vec<String>>);

    impl Observer for Notes {
        fn note(&self, text: &str) {
            self.0.lock().unwrap().push(text.to_owned());
        }
        fn advance(&self, _: u64, _: u64, _: &str) {}
    }

    fn action(dir: &Path) -> CopyIntoHome {
        CopyIntoHome {
            from: dir.join("key"),
            home: dir.join("home"),
            directory: ".ssh".to_owned(),
            name: "id".to_owned(),
            owner: "root".to_owned(),
            group: "root".to_owned(),
        }
    }

    #[test]
    fn a_copy_comes_and_goes_with_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (host, action) = (host(dir.path()), action(dir.path()));
        fs::write(&action.from, "secret").unwrap();
        fs::create_dir(&action.home).unwrap();
        let was = action.capture(&host).unwrap();
        for _ in 0..2 {
            action.apply(&host, &was).unwrap();
        }
        let copy = action.home.join(".ssh/id");
        assert_eq!(fs::read_to_string(&copy).unwrap(), "secret");
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(action.is_done(&host).unwrap());
        for _ in 0..2 {
            action.undo(&host, &was).unwrap();
        }
        assert_eq!(fs::read_dir(&action.home).unwrap().count(), 0);
    }

    /// Between a kill and `resume`.
    #[test]
    fn what_somebody_put_there_meanwhile_is_not_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let (host, action) = (host(dir.path()), action(dir.path()));
        fs::write(&action.from, "secret").unwrap();
        fs::create_dir(&action.home).unwrap();
        let was = action.capture(&host).unwrap();
        action.apply(&host, &was).unwrap();
        let copy = action.home.join(".ssh/id");
        fs::write(&copy, "another").unwrap();
        let error = action.apply(&host, &was).unwrap_err().to_string();
        assert!(error.contains(".ssh/id"), "{error}");
        assert_eq!(fs::read_to_string(&copy).unwrap(), "another");
    }

    #[test]
    fn a_directory_that_was_there_keeps_its_owner() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        for was_there in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let (host, action) = (host(dir.path()), action(dir.path()));
            let directory = action.home.join(".ssh");
            fs::write(&action.from, "secret").unwrap();
            fs::create_dir_all(&directory).unwrap();
            std::os::unix::fs::chown(&directory, Some(7), Some(8)).unwrap();
            action.apply(&host, &Was { directory: was_there, copied: None }).unwrap();
            let now = fs::metadata(&directory).unwrap();
            assert_eq!((now.uid(), now.gid()), if was_there { (7, 8) } else { (0, 0) });
        }
    }

    #[test]
    fn a_planted_link_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (host, action) = (host(dir.path()), action(dir.path()));
        fs::write(&action.from, "secret").unwrap();
        fs::create_dir(&action.home).unwrap();
        let target = dir.path().join("target");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("id"), "theirs").unwrap();
        std::os::unix::fs::symlink(&target, action.home.join(".ssh")).unwrap();
        assert!(action.apply(&host, &Was { directory: false, copied: None }).is_err());
        assert_eq!(noted(&action, false), [action.home.join(".ssh").display().to_string()]);
        assert_eq!(fs::read_to_string(target.join("id")).unwrap(), "theirs");
        // Nor is a link in the place of the copy itself followed, or replaced.
        fs::remove_file(action.home.join(".ssh")).unwrap();
        fs::create_dir(action.home.join(".ssh")).unwrap();
        std::os::unix::fs::symlink(target.join("id"), action.home.join(".ssh/id")).unwrap();
        assert!(action.apply(&host, &Was { directory: true, copied: None }).is_err());
        assert_eq!(fs::read_to_string(target.join("id")).unwrap(), "theirs");
    }

    /// The paths that an undoing names, which succeeds.
    fn noted(action: &CopyIntoHome, directory: bool) -> Vec<String> {
        let notes = Notes::default();
        let host = Host { observer: &notes, ..host(action.home.parent().unwrap()) };
        action.undo(&host, &Was { directory, copied: Some(Sha256Digest::of_bytes(b"secret")) }).unwrap();
        let named = |note: String| note.split_once(" is not what was made").unwrap().0.to_owned();
        notes.0.into_inner().unwrap().into_iter().map(named).collect()
    }

    #[test]
    fn what_took_the_place_of_the_copy_stays_and_stops_no_way_back() {
        let dir = tempfile::tempdir().unwrap();
        let action = action(dir.path());
        fs::create_dir(&action.home).unwrap();
        let (directory, copy) = (action.home.join(".ssh"), action.home.join(".ssh/id"));
        fs::write(&directory, "a file").unwrap();
        assert_eq!(noted(&action, false), [directory.display().to_string()]);
        assert_eq!(fs::read_to_string(&directory).unwrap(), "a file");
        fs::remove_file(&directory).unwrap();
        fs::create_dir_all(copy.join("below")).unwrap();
        assert_eq!(noted(&action, false), [copy.display().to_string()]);
        assert!(copy.join("below").is_dir());
        fs::remove_dir_all(&copy).unwrap();
        std::os::unix::fs::symlink(&action.from, &copy).unwrap();
        assert_eq!(noted(&action, false), [copy.display().to_string()]);
        assert!(copy.is_symlink());
    }

    #[test]
    fn a_secret_that_somebody_changed_stays() {
        let dir = tempfile::tempdir().unwrap();
        let action = action(dir.path());
        let (directory, copy) = (action.home.join(".ssh"), action.home.join(".ssh/id"));
        fs::create_dir_all(&directory).unwrap();
        fs::write(&action.from, "another by now").unwrap();
        for theirs in ["a new one", "secret and more"] {
            fs::write(&copy, theirs).unwrap();
            assert_eq!(noted(&action, false), [copy.display().to_string()]);
            assert_eq!(fs::read_to_string(&copy).unwrap(), theirs);
        }
        // What was copied, also when the original is another one, and half a copy of a killed run.
        for ours in ["secret", "another"] {
            fs::create_dir_all(&directory).unwrap();
            fs::write(&copy, ours).unwrap();
            assert!(noted(&action, false).is_empty());
            assert!(!directory.exists());
        }
    }
}
