//! Editing a part of a text file that belongs to somebody else.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use serde::{Deserialize, Serialize};

use super::Host;
use super::file_state::FileState;

/// A file before it was edited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    /// Where it really lies: a link to it stays a link.
    path: PathBuf,
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
        Ok(Self { state: FileState::capture(&real, host)?, path: real })
    }

    /// What it holds now; empty when it is not there.
    pub fn read(&self) -> Result<String> {
        read_or_empty(&self.path)
    }

    /// Gives it another text. Owner, mode and extended attributes stay; a new file is root:root 0644.
    pub fn write(&self, text: &str) -> Result<()> {
        self.state.write_instead(&self.path, text)
    }

    /// Ends the edit: the very file from before when `text`, what is there now without our part, is what it held (so that
    /// its time stamp comes back too); otherwise somebody else edited it meanwhile, and their text stays.
    pub fn restore(&self, text: &str, host: &Host<'_>) -> Result<()> {
        let held = self.state.read(host)?;
        // An edit closes a last line that had no end.
        if text.as_bytes() == held || text.strip_suffix('\n').is_some_and(|text| text.as_bytes() == held) {
            return self.state.restore(&self.path, host);
        }
        let path = self.path.display();
        host.observer.note(&format!("{path} was edited since; that edit stays, only our part is removed"));
        self.write(text)
    }
}

/// The text of `path`; empty when there is no such file.
pub fn read_or_empty(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        other => other.with_context(|| format!("cannot read {}", path.display())),
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
                    thread::sleep(Duration::from_millis(100));
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
}
