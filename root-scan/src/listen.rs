//! A socket of our own, where no systemd passes one: made as root, which this process is no more once it is there.

use std::fs::{self, Permissions};
use std::io::{self, Error, ErrorKind};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;

#[cfg(target_os = "linux")]
mod rights;

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

/// Makes the socket (root's, mode 0660), and becomes the user who serves, with the two capabilities that the unit would give, and no way to
/// others.
///
/// # Errors
/// When this is not root, when somebody listens there already, and for whatever the kernel refuses; a container may lack the capabilities.
pub fn bind(listen: &Listen) -> io::Result<UnixListener> {
    if !cfg!(target_os = "linux") {
        return Err(Error::other(
            "there is no giving up of rights for this on this system: launchd passes the socket",
        ));
    }
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
    #[cfg(target_os = "linux")]
    rights::become_user(listen.user)?;
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
