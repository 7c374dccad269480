//! The socket that launchd passes. macOS only.
#![allow(unsafe_code)] // nobody wraps the call

use crate::{Failure, Result, while_doing};
use nix::libc;
use nix::sys::socket::{SockType, getsockopt, sockopt};
use std::ffi::CString;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

unsafe extern "C" {
    fn launch_activate_socket(
        name: *const libc::c_char,
        fds: *mut *mut libc::c_int,
        count: *mut libc::size_t,
    ) -> libc::c_int;
}

/// Takes the socket of this name in the job's `Sockets` (launch_activate_socket(3)). To be called once.
///
/// # Errors
/// When there is none, or not exactly one of a stream.
pub fn listener(name: &str) -> Result<UnixListener> {
    let c_name = CString::new(name).map_err(while_doing("use the socket's name"))?;
    let (mut files, mut count) = (std::ptr::null_mut(), 0);
    // SAFETY: the name has its NUL, and both results have room.
    let error = unsafe { launch_activate_socket(c_name.as_ptr(), &raw mut files, &raw mut count) };
    if error != 0 {
        let error = std::io::Error::from_raw_os_error(error);
        return Err(Failure::new(format!(
            "launchd passed no socket called {name}: {error}; see the job's Sockets"
        )));
    }
    // SAFETY: the call has made an array of so many descriptors, which are this process's now, and which it has to free.
    let sockets: Vec<OwnedFd> = unsafe {
        let sockets = (0..count).map(|index| OwnedFd::from_raw_fd(*files.add(index))).collect();
        libc::free(files.cast());
        sockets
    };
    let found = sockets.len();
    match <[OwnedFd; 1]>::try_from(sockets) {
        Ok([socket]) if getsockopt(&socket, sockopt::SockType) == Ok(SockType::Stream) => {
            Ok(UnixListener::from(socket))
        }
        _ => Err(Failure::new(format!("launchd passed {found} sockets called {name}, not one of a stream"))),
    }
}
