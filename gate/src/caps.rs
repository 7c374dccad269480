//! The capabilities of this process (capabilities(7)).
//!
//! System calls that nobody wraps; hence the `unsafe`.
#![allow(unsafe_code)] // capget and capset take pointers, prctl takes anything

use crate::{Result, while_doing};

/// A set of capabilities, bit `n` for capability number `n`.
pub type Set = u64;

/// May write a group map.
pub const SETGID: Set = 1 << 6;
/// May write a user map. Outside a user namespace this is as good as root.
pub const SETUID: Set = 1 << 7;
/// Only where `kernel.unprivileged_userns_clone=0` makes `unshare` demand it; the unit does not grant it otherwise.
pub const SYS_ADMIN: Set = 1 << 21;

/// Takes every capability out of effect, and out of what an `execve` would pass on. Those that are permitted can come
/// back with [`raise`].
///
/// # Errors
/// When the kernel refuses, which it has no reason for.
pub fn lower() -> Result<()> {
    drop_all_but(Set::MAX)
}

/// Gives up, for good, every capability that is not in `keep`, and takes the rest out of effect.
///
/// # Errors
/// When the kernel refuses, which it has no reason for.
pub fn drop_all_but(keep: Set) -> Result<()> {
    let permitted = permitted()? & keep;
    // An ambient capability has to be inheritable too, so emptying that set empties both.
    set(0, permitted, 0)
}

/// Puts the permitted capabilities into effect.
///
/// # Errors
/// When the kernel refuses, which it has no reason for.
pub fn raise() -> Result<()> {
    let permitted = permitted()?;
    set(permitted, permitted, 0)
}

/// Takes everything that is not in `keep` out of what an `execve` could ever give. Needs `CAP_SETPCAP` in effect.
///
/// # Errors
/// Without it.
pub fn bound(keep: Set) -> Result<()> {
    for number in 0..Set::BITS {
        // SAFETY: both operations take a number, and touch no memory of this process.
        let dropped = unsafe {
            // Beyond the last capability that the kernel knows, reading is an error.
            keep >> number & 1 == 1
                || libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) < 0
                || libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) == 0
        };
        check(if dropped { 0 } else { -1 }, "limit the capabilities of this process")?;
    }
    Ok(())
}

/// `struct __user_cap_header_struct` of linux/capability.h.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`: the lower, then the upper 32 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: sets of 64 bits.
const VERSION: u32 = 0x2008_0522;

fn permitted() -> Result<Set> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: both point to live values of the layout that version 3 prescribes: one header, two data.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    check(done, "read the capabilities of this process")?;
    Ok(Set::from(data[0].permitted) | Set::from(data[1].permitted) << 32)
}

fn set(effective: Set, permitted: Set, inheritable: Set) -> Result<()> {
    let mut header = Header { version: VERSION, pid: 0 };
    // The casts cut each set into its halves.
    let half = |shift: u32| Data {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: both point to live values of the layout that version 3 prescribes; capset reads them only.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) };
    check(done, "lower the capabilities of this process")
}

fn check(done: libc::c_long, what: &str) -> Result<()> {
    if done == 0 { Ok(()) } else { Err(while_doing(what)(std::io::Error::last_os_error())) }
}
