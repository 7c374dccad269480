//! Becoming the daemon.

use crate::args::Args;
use crate::peer::Peer;
use crate::{Failure, Result, while_doing};
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The variable with settings that outrank `nix.conf`.
pub const NIX_CONFIG: &str = "NIX_CONFIG";

/// The variable that tells people (and `nix-unroot verify`) which process the daemon serves, as the root daemon does in its title.
pub const CLIENT: &str = "NIX_DAEMON_GATE_CLIENT";

/// Puts the connection on standard input and output, and closes everything else but the log.
///
/// # Errors
/// On a kernel older than Linux 5.9.
pub fn keep_only(connection: impl IntoRawFd) -> Result<()> {
    let connection = connection.into_raw_fd();
    // SAFETY: the descriptor is open and ours; what is closed, nothing in this process uses from here on.
    #[allow(unsafe_code)]
    let done = unsafe { libc::dup2(connection, 0) == 0 && libc::dup2(connection, 1) == 1 && close_from(3) };
    if done {
        Ok(())
    } else {
        Err(while_doing("keep the connection and close other files")(std::io::Error::last_os_error()))
    }
}

/// Closes everything from this descriptor on.
///
/// # Safety
/// Nothing may use any of them afterwards.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
unsafe fn close_from(first: libc::c_int) -> bool {
    // SAFETY: it takes numbers; the rest is the caller's promise.
    unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) == 0 }
}

/// Closes everything from this descriptor on; macOS has no call for it.
///
/// # Safety
/// Nothing may use any of them afterwards.
#[cfg(target_os = "macos")]
#[allow(unsafe_code)]
unsafe fn close_from(first: libc::c_int) -> bool {
    // SAFETY: both take numbers; the rest is the caller's promise. A number that is not open is no harm.
    unsafe {
        for file in first..libc::getdtablesize() {
            libc::close(file);
        }
    }
    true
}

/// Replaces this process by the daemon, with the connection on its standard input and output.
///
/// # Errors
/// When the daemon cannot be executed; otherwise it does not return.
pub fn daemon(args: &Args, client: Peer, trusted: bool) -> Result<Infallible> {
    let inherited = std::env::vars_os();
    let error = Command::new(&args.daemon)
        .arg0("nix-daemon")
        .args(["--stdio", if trusted { "--force-trusted" } else { "--force-untrusted" }])
        .env_clear()
        .envs(environment(inherited, args, client))
        .exec();
    Err(Failure::new(format!("cannot execute {}: {error}", args.daemon.display())))
}

/// What of the unit's environment the daemon does not get: what steers the loader, what describes the unprivileged
/// account (a root daemon has none of it, and `SHELL=nologin` breaks ssh's proxy commands), what systemd says
/// about this process, and where to find a daemon.
const DROPPED: [&str; 10] = [
    CLIENT,
    "GLIBC_TUNABLES",
    "HOME",
    "LOGNAME",
    "NIX_REMOTE",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "SHELL",
    "USER",
    NIX_CONFIG,
];

pub(crate) fn environment(
    inherited: impl Iterator<Item = (OsString, OsString)>,
    args: &Args,
    client: Peer,
) -> Vec<(OsString, OsString)> {
    let mut settings = OsString::new();
    let mut environment = Vec::new();
    for (name, value) in inherited {
        if name == NIX_CONFIG {
            settings.push(&value);
            settings.push("\n");
        }
        let bytes = name.as_bytes();
        let loader = [&b"LD_"[..], b"DYLD_", b"LISTEN_"].iter().any(|prefix| bytes.starts_with(prefix));
        if !loader && !DROPPED.iter().any(|dropped| OsStr::new(dropped) == name) {
            environment.push((name, value));
        }
    }
    // Last, so that nothing in the unit's own settings outranks these.
    settings.push(args.builds.settings());
    environment.push((NIX_CONFIG.into(), settings));
    environment.push(("HOME".into(), args.home.clone().into()));
    environment.push((CLIENT.into(), client.pid.to_string().into()));
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daemons_environment() {
        let args = ["--daemon", "/d", "--subids", "65536:65536", "--conf", "/c", "--home", "/h"];
        let args = Args::parse(args.into_iter().map(OsString::from)).unwrap();
        let given = [
            ("PATH", "/usr/bin"),
            ("https_proxy", "http://p"),
            ("LD_PRELOAD", "/evil.so"),
            ("LD_AUDIT", "/evil.so"),
            ("GLIBC_TUNABLES", "x"),
            ("HOME", "/root"),
            ("SHELL", "/usr/sbin/nologin"),
            ("NIX_REMOTE", "daemon"),
            ("LISTEN_FDS", "1"),
            ("NIX_CONFIG", "cores = 3\nstore = daemon"),
        ];
        let given = given.into_iter().map(|(name, value)| (name.into(), value.into()));
        let got = environment(given, &args, Peer { pid: 4711, uid: 1000, gid: 1000 });
        let names: Vec<_> = got.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert_eq!(names, ["PATH", "https_proxy", "NIX_CONFIG", "HOME", CLIENT]);
        let settings: Vec<_> = got[2].1.to_str().unwrap().lines().collect();
        assert_eq!(settings[0], "cores = 3");
        assert_eq!(settings.last(), Some(&"store = local?use-roots-daemon=true"), "the last one wins");
        assert!(settings.contains(&"start-id = 65536") && settings.contains(&"build-users-group ="));
        assert_eq!((got[3].1.to_str(), got[4].1.to_str()), (Some("/h"), Some("4711")));
    }
}
