//! A socket of our own, where no systemd passes one: made as root, which this process is no more once it is there.

use std::fs::{self, Permissions};
use std::io::{self, Error, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};

/// A socket to make, and whom to become.
#[derive(Debug)]
pub struct Listen {
    /// Where; its directory is root's.
    pub path: PathBuf,
    /// Who may connect besides its owner, root: the daemon's group.
    pub group: u32,
    /// Uid and gid to serve as; neither is 0.
    pub user: (u32, u32),
}

/// See into every directory.
const CAP_DAC_READ_SEARCH: u32 = 2;
/// See what every process uses.
const CAP_SYS_PTRACE: u32 = 19;
const KEPT: [u32; 2] = [CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE];
/// `_LINUX_CAPABILITY_VERSION_3`: sets of 64 bits.
const VERSION: u32 = 0x2008_0522;

/// Makes the socket (root's, mode 0660), and becomes the user who serves, with the two capabilities that the unit would give, and no way to
/// others.
///
/// # Errors
/// When this is not root, when somebody listens there already, and for whatever the kernel refuses; a container may lack the capabilities.
pub fn bind(listen: &Listen) -> io::Result<UnixListener> {
    if !geteuid().is_root() {
        return Err(Error::other("only root can make the socket: start it as root, it becomes another user"));
    }
    remove_stale(listen)?;
    // Nobody but root before it has its group.
    let mask = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(&listen.path);
    umask(mask);
    let socket = bound?;
    chown(&listen.path, Some(0), Some(listen.group))?;
    fs::set_permissions(&listen.path, Permissions::from_mode(0o660))?;
    become_user(listen.user)?;
    Ok(socket)
}

/// A socket that nobody listens on is what a scanner that was killed left behind.
fn remove_stale(listen: &Listen) -> io::Result<()> {
    match UnixStream::connect(&listen.path) {
        Ok(_) => Err(Error::other("somebody listens there already")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            match fs::symlink_metadata(&listen.path)?.file_type().is_socket() {
                true => fs::remove_file(&listen.path),
                // What is there but no socket says this too, and then is not removed.
                false => Err(error),
            }
        }
        Err(error) => Err(error),
    }
}

fn become_user((uid, gid): (u32, u32)) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    bound()?;
    prctl::set_keepcaps(true)?;
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    prctl::set_keepcaps(false)?;
    prctl::set_no_new_privs()?;
    keep()
}

/// Takes all others out of what an `execve` could ever give.
fn bound() -> io::Result<()> {
    for number in (0..64).filter(|number| !KEPT.contains(number)) {
        // Beyond the last one that the kernel knows, reading is an error.
        if control(libc::PR_CAPBSET_READ, number, 0).is_ok() {
            control(libc::PR_CAPBSET_DROP, number, 0)?;
        }
    }
    Ok(())
}

/// The two in effect, also for the child that looks into homes: it is this program, executed once more.
fn keep() -> io::Result<()> {
    /// `struct __user_cap_data_struct`: the lower, then the upper 32 capabilities.
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let set = KEPT.iter().fold(0, |set, number| set | 1_u32 << number);
    let mut header: [u32; 2] = [VERSION, 0];
    let data = [
        Data { effective: set, permitted: set, inheritable: set },
        Data { effective: 0, permitted: 0, inheritable: 0 },
    ];
    #[allow(unsafe_code)] // Nobody wraps capset.
    // SAFETY: both point to live values of the layout that version 3 prescribes: a header of version and process, two data.
    let done = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), data.as_ptr()) };
    Errno::result(done).map_err(|errno| match errno {
        Errno::EPERM => Error::other(
            "CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE are not there to keep: grant them to the container",
        ),
        other => other.into(),
    })?;
    KEPT.iter().try_for_each(|number| {
        // PR_CAP_AMBIENT_RAISE; the constant is of another type.
        control(libc::PR_CAP_AMBIENT, 2, *number)
    })
}

#[allow(unsafe_code)] // Nobody wraps these.
fn control(operation: i32, argument: u32, second: u32) -> io::Result<()> {
    // SAFETY: these operations take numbers, and touch no memory of this process.
    let done = unsafe {
        libc::prctl(
            operation,
            libc::c_ulong::from(argument),
            libc::c_ulong::from(second),
            0 as libc::c_ulong,
            0 as libc::c_ulong,
        )
    };
    Ok(Errno::result(done).map(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_makes_room_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let listen = Listen { path: dir.path().join("socket"), group: 1, user: (1, 1) };
        remove_stale(&listen).unwrap();
        let alive = UnixListener::bind(&listen.path).unwrap();
        assert!(remove_stale(&listen).unwrap_err().to_string().contains("already"));
        drop(alive);
        remove_stale(&listen).unwrap();
        assert!(!listen.path.exists());
        fs::write(&listen.path, "kept").unwrap();
        assert!(remove_stale(&listen).is_err());
        assert_eq!(fs::read_to_string(&listen.path).unwrap(), "kept");
    }
}
