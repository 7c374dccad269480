//! From root to the user who serves.

use crate::{Result, while_doing};
use nix::unistd::{Gid, Uid};

/// With what a unit would leave: two capabilities, and no way to any other.
#[cfg(target_os = "linux")]
pub fn become_user(uid: u32, gid: u32) -> Result<()> {
    use crate::caps;
    use nix::sys::prctl;
    use nix::unistd::{setgroups, setresgid, setresuid};
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    caps::raise()?;
    caps::bound(caps::SETUID | caps::SETGID)?;
    prctl::set_keepcaps(true).map_err(while_doing("keep capabilities"))?;
    setgroups(&[]).map_err(while_doing("drop supplementary groups"))?;
    setresgid(gid, gid, gid).map_err(while_doing(format!("become group {gid}")))?;
    setresuid(uid, uid, uid).map_err(while_doing(format!("become user {uid}")))?;
    prctl::set_keepcaps(false).map_err(while_doing("keep capabilities no longer"))?;
    prctl::set_no_new_privs().map_err(while_doing("rule out new privileges"))?;
    caps::drop_all_but(caps::SETUID | caps::SETGID)
}

/// With nothing left of root.
#[cfg(not(target_os = "linux"))]
pub fn become_user(uid: u32, gid: u32) -> Result<()> {
    use nix::unistd::{setgid, setuid};
    // SAFETY: a list of no groups; nothing is read.
    #[allow(unsafe_code)]
    if unsafe { libc::setgroups(0, std::ptr::null()) } != 0 {
        return Err(while_doing("drop supplementary groups")(std::io::Error::last_os_error()));
    }
    setgid(Gid::from_raw(gid)).map_err(while_doing(format!("become group {gid}")))?;
    setuid(Uid::from_raw(uid)).map_err(while_doing(format!("become user {uid}")))
}
