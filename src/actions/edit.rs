//! Editing a part of a text file that belongs to somebody else.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use serde::{Deserialize, Serialize};

use super::conflict::{Conflict, Keep, Present, Scan, Version, put_aside, undecided};
use super::file_state::FileState;
use super::{Host, show};
use crate::system::files;
use crate::system::pause::Pause;

/// A file before it was edited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    /// Where it really lies: a link to it stays a link.
    path: PathBuf,
    /// The path that led there, when it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    through: Option<PathBuf>,
    /// What stood there.
    state: FileState,
}

impl Original {
    /// What `path`, or the file that it is a link to, holds now.
    ///
    /// # Errors
    /// When it cannot be read, or lies below `/nix`: then a configuration tool made it, and would make it again.
    pub fn capture(path: &Path, host: &Host<'_>) -> Result<Self> {
        let real = match fs::canonicalize(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
            other => other.with_context(|| format!("cannot find out where {} lies", path.display()))?,
        };
        if real.starts_with("/nix") {
            bail!(
                "{} is a link to {}: change it in the configuration that makes it",
                path.display(),
                real.display()
            );
        }
        let through = (real != path).then(|| path.to_owned());
        Ok(Self { state: FileState::capture(&real, host)?, path: real, through })
    }

    /// Tells the scan when the file is no text file any more. Otherwise the text that it holds, for more questions; none when the file is
    /// gone, or as it was before.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn look_for_conflicts(&self, scan: &mut Scan<'_>) -> Result<Option<String>> {
        let now = Present::at(&self.path)?;
        if self.is_undone(&now, scan.host)? {
            return Ok(None);
        }
        if let Some(text) = text_of(&now) {
            return Ok(Some(text.to_owned()));
        }
        let reason = match now {
            Present::File(_) => "somebody else changed it, and it is no text in UTF-8 any more",
            _ => "somebody else put it in the place of the file",
        };
        scan.conflict(self.conflict(&now, reason, scan.host)?);
        Ok(None)
    }

    /// A conflict about this file. What the run put there is told by the caller.
    pub fn conflict(&self, now: &Present, reason: &str, host: &Host<'_>) -> Result<Conflict> {
        Ok(Conflict {
            path: self.path.clone(),
            reason: reason.to_owned(),
            before: Present::of(&self.state, host)?.version(),
            ours: Version::of("the same file with an addition"),
            now: now.version(),
            digest: now.digest(),
        })
    }

    /// The file that our part is to be taken from, when it still is a text file; else as it was chosen: the file behind somebody's
    /// link, or none because it stays as it is or the file from before is back. It is back as well when somebody deleted the file, or had undone our edit.
    ///
    /// # Errors
    /// When there is a conflict without a choice, or the file cannot be put back.
    pub fn to_undo(&self, host: &Host<'_>) -> Result<Option<Self>> {
        let now = Present::at(&self.path)?;
        if self.is_undone(&now, host)? {
            return self.put_back(host).map(|()| None);
        }
        if text_of(&now).is_some() {
            return Ok(Some(self.clone()));
        }
        match host.choices.of(&self.path, &now) {
            Some(Keep::Theirs) => {
                files::forget_temporary(&self.path);
                Self::behind(&self.path, host)
            }
            Some(Keep::Ours) => {
                put_aside(&self.path, &now, host)?;
                self.state.restore(&self.path, host).map(|()| None)
            }
            None => bail!(undecided(&self.path)),
        }
    }

    /// The text file that `path` leads to; none, with a note, when it is a file that is not ours to edit.
    fn behind(path: &Path, host: &Host<'_>) -> Result<Option<Self>> {
        let Some(real) = fs::canonicalize(path).ok().filter(|real| real.is_file()) else { return Ok(None) };
        if real.starts_with("/nix") || text_of(&Present::at(&real)?).is_none() {
            host.observer.note(&format!(
                "{} stays as it is: it is made by a configuration, or no text in UTF-8; look whether lines of nix-unroot are in it",
                show(&real)
            ));
            return Ok(None);
        }
        Self::capture(&real, host).map(Some)
    }

    /// Takes our part also out of the file that the path leads to by now, when that is another one than was edited: `sed -i` makes a
    /// file of a link, with all that was behind it. `without` is a text without our part.
    ///
    /// # Errors
    /// When that file cannot be read or written.
    pub fn follow(&self, host: &Host<'_>, without: impl Fn(&str) -> Result<String>) -> Result<()> {
        let Some(through) = &self.through else { return Ok(()) };
        let real = |path: &Path| fs::canonicalize(path).ok();
        if real(through) == real(&self.path) {
            return Ok(());
        }
        let Some(file) = Self::behind(through, host)? else { return Ok(()) };
        let text = file.read()?;
        let rest = without(&text)?;
        if rest == text {
            return Ok(());
        }
        host.observer.note(&format!(
            "{} does not lead to {} any more: what was done there is undone in {}, too",
            show(through),
            show(&self.path),
            show(file.path())
        ));
        file.write(&rest)
    }

    /// Whether nothing of our edit is in what is there now: somebody deleted the file, or it is what it was before. A rollback that died
    /// before it gave the time stamp back leaves it so, too.
    fn is_undone(&self, now: &Present, host: &Host<'_>) -> Result<bool> {
        Ok(*now == Present::Absent || *now == Present::of(&self.state, host)?)
    }

    /// What is at its place now.
    pub fn present(&self) -> Result<Present> {
        Present::at(&self.path)
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it held.
    ///
    /// # Errors
    /// When that was no text, or a copy in the backups cannot be read.
    pub fn held(&self, host: &Host<'_>) -> Result<String> {
        let bytes = self.state.read(host)?;
        String::from_utf8(bytes).with_context(|| format!("{} was no text", self.path.display()))
    }

    /// What it holds now; empty when it is not there.
    pub fn read(&self) -> Result<String> {
        read_or_empty(&self.path)
    }

    /// Gives it another text. Owner, mode and extended attributes stay as they are now; a new file is root:root 0644.
    pub fn write(&self, text: &str) -> Result<()> {
        self.state.write_instead(&self.path, text)
    }

    /// The text from before with its time stamp, for who knows that nobody else edited it since. Owner, mode and extended attributes,
    /// which the edit left alone, stay as they are now.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put_back(&self, host: &Host<'_>) -> Result<()> {
        self.state.restore_over(&self.path, None, host)
    }

    /// Ends the edit: the very file from before when `text`, what is there now without our part, is what it held (so that
    /// its time stamp comes back too); otherwise somebody else edited it meanwhile, and their text stays.
    pub fn restore(&self, text: &str, host: &Host<'_>) -> Result<()> {
        let held = self.state.read(host)?;
        // An edit closes a last line that had no end.
        if text.as_bytes() == held || text.strip_suffix('\n').is_some_and(|text| text.as_bytes() == held) {
            return self.put_back(host);
        }
        let path = self.path.display();
        host.observer.note(&format!("{path} was edited since; that edit stays, only our part is removed"));
        self.write(text)
    }
}

fn text_of(now: &Present) -> Option<&str> {
    match now {
        Present::File(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

/// `text` without the lines that are ours; every other byte stays, and so do as many of these as `held` had, the first ones.
pub fn without_added(text: &str, held: &str, is_ours: impl Fn(&str) -> bool) -> String {
    let mut had = held.split_inclusive('\n').filter(|line| is_ours(line)).count();
    let stays = |line: &&str| {
        let is_theirs = !is_ours(line) || had > 0;
        had -= usize::from(is_theirs && is_ours(line));
        is_theirs
    };
    text.split_inclusive('\n').filter(stays).collect()
}

/// The text of `path`; empty when there is no such file.
pub fn read_or_empty(path: &Path) -> Result<String> {
    String::from_utf8(bytes_or_none(path)?).with_context(|| format!("cannot read {}", show(path)))
}

/// What `path` holds; nothing when there is no such file.
pub fn bytes_or_none(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => other.with_context(|| format!("cannot read {}", show(path))),
    }
}

/// The lock that account tools take before they edit account and subid files (lckpwdf(3)). The kernel gives it back when
/// the file is closed.
#[derive(Debug)]
pub struct AccountLock {
    _file: File,
}

impl AccountLock {
    /// As long as lckpwdf(3) waits.
    const PATIENCE: Duration = Duration::from_secs(15);

    /// Takes the lock.
    ///
    /// # Errors
    /// When somebody else holds it for too long.
    pub fn take() -> Result<Self> {
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open("/etc/.pwd.lock");
        let file = file.context("cannot open /etc/.pwd.lock")?;
        let start = Instant::now();
        let mut pause = Pause::up_to(Duration::from_millis(100));
        let whole = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        loop {
            match fcntl(&file, FcntlArg::F_SETLK(&whole)) {
                Ok(_) => return Ok(Self { _file: file }),
                Err(Errno::EAGAIN | Errno::EACCES) if start.elapsed() < Self::PATIENCE => {
                    pause.wait();
                }
                Err(errno) => {
                    bail!("an account tool holds /etc/.pwd.lock ({errno}): wait for it to end, and try again")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::super::test_host::host;
    use super::*;

    #[test]
    fn a_link_stays_a_link_and_its_target_keeps_mode_and_acl() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "a\n").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
        xattr::set(&target, "user.note", b"kept").unwrap();
        symlink(&target, &link).unwrap();
        let before = FileState::capture(&target, &host).unwrap();
        let original = Original::capture(&link, &host).unwrap();
        original.write("a\nb\n").unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(xattr::get(&target, "user.note").unwrap().unwrap(), b"kept");
        original.restore("a\n", &host).unwrap();
        assert_eq!(FileState::capture(&target, &host).unwrap(), before);
        assert!(link.is_symlink());
    }

    #[test]
    fn a_file_that_somebody_made_secret_stays_secret() {
        for (now, after) in [("a\nours\n", "a\n"), ("a\nours\ntoken\n", "a\ntoken\n"), ("a\n", "a\n")] {
            let dir = tempfile::tempdir().unwrap();
            let (host, path) = (host(dir.path()), dir.path().join("file"));
            fs::write(&path, "a\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            let original = Original::capture(&path, &host).unwrap();
            original.write("a\nours\n").unwrap();
            fs::write(&path, now).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            for _ in 0..2 {
                if let Some(file) = original.to_undo(&host).unwrap() {
                    file.restore(&file.read().unwrap().replace("ours\n", ""), &host).unwrap();
                }
                assert_eq!(fs::read_to_string(&path).unwrap(), after);
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640, "{now:?}");
            }
        }
    }

    #[test]
    fn a_file_that_somebody_deleted_comes_back_whole() {
        for held in [None, Some("a\n")] {
            let dir = tempfile::tempdir().unwrap();
            let (host, path) = (host(dir.path()), dir.path().join("file"));
            if let Some(text) = held {
                fs::write(&path, text).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            }
            let original = Original::capture(&path, &host).unwrap();
            original.write("a\nours\n").unwrap();
            fs::remove_file(&path).unwrap();
            for _ in 0..2 {
                assert_eq!(
                    original.to_undo(&host).unwrap(),
                    None,
                    "nothing of ours is left to be taken away"
                );
                assert_eq!(Original::capture(&path, &host).unwrap(), original, "{held:?}");
            }
        }
    }
}
