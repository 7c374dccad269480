//! The socket on which clients arrive: systemd's, or one that the gate makes.

use crate::args::{Args, Listen};
use crate::{Failure, Result, while_doing};
use nix::sys::socket::{SockType, getsockopt, sockopt};
use nix::sys::stat::{Mode, umask};
use nix::unistd::geteuid;
use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// The socket that the command line means.
///
/// # Errors
/// When it cannot be had; and on macOS, when there is nobody but the daemon to become a build user.
pub fn socket(args: &Args) -> Result<UnixListener> {
    #[cfg(not(target_os = "linux"))]
    if matches!(args.builds, crate::builds::Builds::Namespace(_)) {
        return Err(Failure::new("--subids needs Linux: there are no user namespaces here; use --broker"));
    }
    match (&args.listen, &args.launchd) {
        (Some(listen), _) => bind(listen),
        (None, Some(name)) => launchd(name),
        (None, None) => inherit(),
    }
}

#[cfg(not(target_os = "macos"))]
fn launchd(_: &str) -> Result<UnixListener> {
    Err(Failure::new("--launchd needs macOS; start nix-daemon.socket, or give --listen"))
}

#[cfg(target_os = "macos")]
use helper_common::launchd::listener as launchd;

/// Takes the socket that systemd passes as file 3 (sd_listen_fds(3)). To be called once, before any file is opened.
///
/// # Errors
/// When there is none, or not exactly one listening stream socket.
pub fn inherit() -> Result<UnixListener> {
    let variable = |name| std::env::var(name).ok();
    if variable("LISTEN_PID") != Some(std::process::id().to_string()) {
        return Err(Failure::new(
            "no socket was passed: start nix-daemon.socket, or give --listen where there is no systemd",
        ));
    }
    // SAFETY: LISTEN_PID says that files from 3 on are ours; nothing else in this process knows this one.
    #[allow(unsafe_code)]
    let socket = unsafe { OwnedFd::from_raw_fd(3) };
    let stream = getsockopt(&socket, sockopt::SockType) == Ok(SockType::Stream);
    let listens = getsockopt(&socket, sockopt::AcceptConn) == Ok(true);
    if variable("LISTEN_FDS").as_deref() == Some("1") && stream && listens {
        Ok(UnixListener::from(socket))
    } else {
        Err(Failure::new("what was passed is not one listening socket: the socket unit needs Accept=no"))
    }
}

/// Makes the socket, and becomes the user who serves.
///
/// # Errors
/// When somebody listens there already, when this is root and no user is named, and for whatever the kernel refuses.
pub fn bind(listen: &Listen) -> Result<UnixListener> {
    if geteuid().is_root() && listen.user.is_none() {
        return Err(Failure::new("root may not serve: name the store's owner with --user UID:GID"));
    }
    remove_stale(&listen.path)?;
    // Nobody but us before it has its mode.
    let mask = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(&listen.path);
    umask(mask);
    let cannot = |what: &str| while_doing::<std::io::Error>(format!("{what} {}", listen.path.display()));
    let socket = bound.map_err(cannot("make the socket"))?;
    std::fs::set_permissions(&listen.path, Permissions::from_mode(listen.mode))
        .map_err(cannot("set the mode of"))?;
    if let Some((uid, gid)) = listen.user {
        become_user(uid, gid)?;
    }
    Ok(socket)
}

/// A socket that nobody listens on is what a gate that was killed left behind.
fn remove_stale(path: &Path) -> Result<()> {
    match UnixStream::connect(path) {
        Ok(_) => Err(Failure::new(format!("{}: somebody listens there already", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // What is there but no socket says this too, and then is not removed.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused && is_socket(path) => {
            std::fs::remove_file(path)
                .map_err(while_doing(format!("remove the stale socket {}", path.display())))
        }
        Err(error) => Err(Failure::new(format!("cannot make a socket at {}: {error}", path.display()))),
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

use become_user::become_user;

mod become_user;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_replaces_a_stale_one_and_nothing_else() {
        let dir = std::env::temp_dir().join(format!("nix-daemon-gate-listen-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("socket");
        assert!(remove_stale(&path).is_ok(), "nothing is there");
        let alive = UnixListener::bind(&path).unwrap();
        assert!(remove_stale(&path).unwrap_err().to_string().contains("already"));
        drop(alive);
        remove_stale(&path).unwrap();
        assert!(!path.exists());
        std::fs::write(&path, "kept").unwrap();
        assert!(remove_stale(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
