//! macOS: no namespaces, so a build sees the machine as any user does, in a sandbox that lets it write to its directory and its outputs.
//!
//! None of this could be run where it was written: it was compiled and linked for both kinds of Mac.
#![allow(unsafe_code)] // renameatx_np, setattrlistat and proc_listpids have no safe wrapper

use super::Dirs;
use crate::args::Serve;
use crate::policy::Build;
use crate::{Failure, Result, tree, while_doing};
use nix::errno::Errno;
use nix::sys::stat::Mode;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// `sandbox-exec(1)`: applies a profile to itself and becomes the program.
const SANDBOX_EXEC: &CStr = c"/usr/bin/sandbox-exec";
/// `sys/proc_info.h`: processes by effective, and by real uid.
const PROC_UID_ONLY: u32 = 4;
const PROC_RUID_ONLY: u32 = 5;

/// Where a build finds its directory.
#[must_use]
pub fn build_dir(work: &Path) -> PathBuf {
    work.join("build")
}

/// Makes the build's directory. Outputs are made in the store itself.
///
/// # Errors
/// When there is no room.
pub fn prepare(dir: &OwnedFd, store: &OwnedFd, _: &Serve, _: &Build) -> Result<Dirs> {
    let build = tree::make(dir, c"build", Mode::from_bits_truncate(0o700))
        .map_err(while_doing("make the directory of a build"))?;
    let clone = |dir: &OwnedFd| dir.try_clone().map_err(while_doing("prepare a build"));
    Ok(Dirs { parent: clone(dir)?, build, made: clone(store)? })
}

/// There is no other world to enter.
///
/// # Errors
/// Never.
pub fn enter(_: &Path, _: &Serve, _: &Build) -> Result<()> {
    Ok(())
}

/// Program and words to execute: `sandbox-exec`, whose parameters are the only thing in which one build's sandbox differs from another's.
///
/// # Errors
/// Without a profile.
pub fn command(serve: &Serve, build: &Build, dir: &Path) -> Result<(CString, Vec<CString>)> {
    let profile = serve.profile.as_deref().ok_or_else(|| Failure::new("--profile is missing"))?;
    Ok((SANDBOX_EXEC.to_owned(), super::profile::words(profile, &serve.store, build, dir)?))
}

/// A sandboxed process cannot execute set-id programs.
///
/// # Errors
/// Never.
pub fn no_new_privileges() -> nix::Result<()> {
    Ok(())
}

/// Is a process of this uid alive, by its effective or its real uid?
///
/// # Errors
/// When the kernel does not say.
pub fn is_alive(uid: u32) -> Result<bool> {
    for kind in [PROC_UID_ONLY, PROC_RUID_ONLY] {
        let mut pids = [0_i32; 64];
        // SAFETY: the buffer is writable, and as long as is said.
        let bytes = unsafe {
            *libc::__error() = 0;
            libc::proc_listpids(kind, uid, pids.as_mut_ptr().cast(), size_of_val(&pids) as libc::c_int)
        };
        if bytes < 0 || bytes == 0 && Errno::last_raw() != 0 {
            return Err(while_doing("list processes")(Errno::last()));
        }
        if bytes > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes flags such as `uchg` off, with which a user keeps even root from changing a file (chflags(2)).
///
/// # Errors
/// The kernel's.
pub fn clear_flags(dir: &OwnedFd, name: &CStr) -> nix::Result<()> {
    if tree::status(dir, name)?.st_flags == 0 {
        return Ok(());
    }
    let mut which = libc::attrlist {
        bitmapcount: libc::ATTR_BIT_MAP_COUNT,
        reserved: 0,
        commonattr: libc::ATTR_CMN_FLAGS,
        volattr: 0,
        dirattr: 0,
        fileattr: 0,
        forkattr: 0,
    };
    let mut none = 0_u32;
    // SAFETY: the list names one attribute of 32 bits, and the buffer is that long; the name is a string with its NUL.
    let done = unsafe {
        libc::setattrlistat(
            dir.as_raw_fd(),
            name.as_ptr(),
            (&raw mut which).cast(),
            (&raw mut none).cast(),
            size_of::<u32>(),
            libc::FSOPT_NOFOLLOW,
        )
    };
    Errno::result(done).map(drop)
}

/// Renames an entry of one directory to the same name in another, where nothing may be yet.
///
/// # Errors
/// When something is there.
pub fn rename_new(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> nix::Result<()> {
    // SAFETY: both names are strings with their NUL.
    let done = unsafe {
        libc::renameatx_np(from.as_raw_fd(), name.as_ptr(), to.as_raw_fd(), name.as_ptr(), libc::RENAME_EXCL)
    };
    Errno::result(done).map(drop)
}
