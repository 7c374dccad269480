//! From root to a user with two capabilities.

use std::io::{self, Error};

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// See into every directory.
const CAP_DAC_READ_SEARCH: u32 = 2;
/// See what every process uses.
const CAP_SYS_PTRACE: u32 = 19;
const KEPT: [u32; 2] = [CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE];
/// `_LINUX_CAPABILITY_VERSION_3`: sets of 64 bits.
const VERSION: u32 = 0x2008_0522;

/// Becomes this uid and gid, with the two capabilities and no way to others.
///
/// # Errors
/// Whatever the kernel refuses.
pub fn become_user((uid, gid): (u32, u32)) -> io::Result<()> {
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
