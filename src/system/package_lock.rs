//! Package managers and other installers: while they are at work, this tool is not, and the other way round.
//!
//! dpkg and rpm lock a file as fcntl(2) does it, so the same lock is held for the length of a run: the kernel gives it back however
//! the run ends, and no file is left. pacman makes a file instead, which would stay behind a run that dies; that one is
//! only looked at. Installers of Nix have no lock; the processes tell.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// Locks of dpkg and its frontends, and of rpm in its old and new place (`lib/rpmlock.c`).
const LOCKED: [&str; 3] =
    ["/var/lib/dpkg/lock-frontend", "/var/lib/rpm/.rpm.lock", "/usr/lib/sysimage/rpm/.rpm.lock"];
/// pacman's lock is a file that is there while it works (`libalpm/handle.c`).
const THERE: &str = "/var/lib/pacman/db.lck";
/// Installers of Nix, by a part of their command line.
const INSTALLERS: [&str; 3] = ["install-multi-user", "nix-installer", "install-systemd-multi-user"];

/// Somebody else installs or removes software.
#[derive(Debug, thiserror::Error)]
pub enum PackageLockError {
    /// A package manager holds its lock.
    #[error("a package manager is at work ({who} holds {path}): wait for it to end, and try again")]
    Held {
        /// The lock.
        path: PathBuf,
        /// The process.
        who: String,
    },
    /// pacman's file is there.
    #[error(
        "pacman is at work, or was ended in the middle ({path} is there): wait for it to end, or remove the file"
    )]
    There {
        /// The file.
        path: PathBuf,
    },
    /// An installer of Nix runs.
    #[error("another installer of Nix is at work (process {pid}): wait for it to end, and try again")]
    Installer {
        /// Its process.
        pid: String,
    },
    /// A lock could not be looked at.
    #[error("cannot lock {path}: {reason}")]
    Io {
        /// The lock.
        path: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
}

/// The locks of the package managers that this machine has.
#[derive(Debug)]
pub struct PackageLocks {
    _files: Vec<File>,
}

impl PackageLocks {
    /// Takes them all, without waiting. `running` are root's processes, by number and the words of their command lines, where
    /// `/proc` does not tell of them.
    ///
    /// # Errors
    /// When somebody holds one, or an installer runs.
    pub fn take(running: Option<&[(i32, Vec<String>)]>) -> Result<Self, PackageLockError> {
        if let Some(pid) = running.map_or_else(installer, installer_among) {
            return Err(PackageLockError::Installer { pid });
        }
        if Path::new(THERE).exists() {
            return Err(PackageLockError::There { path: THERE.into() });
        }
        let files = LOCKED.iter().map(|path| lock(Path::new(path))).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { _files: files.into_iter().flatten().collect() })
    }
}

/// A machine without that package manager has no such file, and none is made.
fn lock(path: &Path) -> Result<Option<File>, PackageLockError> {
    let io = |reason| PackageLockError::Io { path: path.to_owned(), reason };
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io)?,
    };
    let mut whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(&file, FcntlArg::F_SETLK(&whole)) {
        Ok(_) => Ok(Some(file)),
        Err(Errno::EAGAIN | Errno::EACCES) => {
            let holder = fcntl(&file, FcntlArg::F_GETLK(&mut whole)).ok().map(|_| whole.l_pid);
            let who =
                holder.filter(|pid| *pid > 0).map_or("somebody".to_owned(), |pid| format!("process {pid}"));
            Err(PackageLockError::Held { path: path.to_owned(), who })
        }
        Err(errno) => Err(io(errno.into())),
    }
}

/// A running installer of Nix: a program, or a script of that name.
fn installer() -> Option<String> {
    let me = std::process::id().to_string();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let pid = process.file_name().to_string_lossy().into_owned();
        if pid == me || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // Anybody can call a process so; root's alone can be an installer of this machine.
        let of_root =
            process.metadata().is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0);
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        if of_root && is_installer(command.split(|byte| *byte == 0)) {
            return Some(pid);
        }
    }
    None
}

fn installer_among(running: &[(i32, Vec<String>)]) -> Option<String> {
    let found = running.iter().find(|(_, words)| is_installer(words.iter().map(String::as_bytes)));
    found.map(|(pid, _)| pid.to_string())
}

/// By the program, or what an interpreter runs.
fn is_installer<'a>(words: impl Iterator<Item = &'a [u8]>) -> bool {
    words.take(2).any(|word| {
        let name = word.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        INSTALLERS.iter().any(|installer| name == installer.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installer_is_told_by_its_name_or_its_scripts() {
        let process = |pid, line: &str| (pid, line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let of_others = [
            process(1, "/sbin/launchd"),
            process(2, "vi /tmp/x nix-installer"),
            process(3, "sh nix-installer.sh"),
        ];
        assert_eq!(installer_among(&of_others), None);
        for line in
            ["/nix/nix-installer repair", "sudo ./nix-installer install", "bash /tmp/n/install-multi-user"]
        {
            let all = [of_others.as_slice(), &[process(412, line)]].concat();
            assert_eq!(installer_among(&all), Some("412".to_owned()), "{line}");
            assert!(
                matches!(PackageLocks::take(Some(&all)), Err(PackageLockError::Installer { pid }) if pid == "412")
            );
        }
    }

    #[test]
    fn a_lock_of_another_process_is_told_with_its_holder_and_one_that_is_free_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock-frontend");
        assert!(lock(&path).unwrap().is_none());
        assert!(!path.exists(), "none is made");
        fs::write(&path, "").unwrap();
        // Locks belong to processes, so another one has to ask.
        let script = "use Fcntl; open my $f, '+<', $ARGV[0] or die; \
                      my $l = pack('s s x4 q q i', F_WRLCK, 0, 0, 0, 0); fcntl($f, F_SETLK, $l) or die; syswrite STDOUT, 'held'; <STDIN>";
        let ask = || {
            let mut command = std::process::Command::new("perl");
            command.args(["-e", script]).arg(&path);
            command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
            command.stderr(std::process::Stdio::null()).spawn().unwrap()
        };
        let mut holder = ask();
        let mut said = [0; 4];
        io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut said).unwrap();
        let error = lock(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", holder.id())) && error.contains("lock-frontend"),
            "{error}"
        );
        drop(holder.stdin.take());
        holder.wait().unwrap();
        let ours = lock(&path).unwrap().unwrap();
        let mut other = ask();
        assert!(!other.wait().unwrap().success(), "a package manager may go on beside us");
        drop(ours);
    }
}
