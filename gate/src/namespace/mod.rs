//! The user and mount namespace that the daemon runs in.
//!
//! Inside, uid 0 is the user who owns the store, and the subordinate ids are themselves: the daemon takes itself for root,
//! and can become each build user, but nobody else.

pub mod maps;
pub mod mounts;
pub mod names;
pub mod ssh;

use crate::args::Args;
use crate::builds::Subids;
use crate::{Failure, Result, caps, while_doing};
use maps::MapWriter;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// Enters the namespace and prepares it. Afterwards this process has every capability inside, and none outside.
///
/// # Errors
/// When the machine does not allow user namespaces, or the ids are not what the unit says.
pub fn enter(writer: MapWriter, subids: Subids, args: &Args) -> Result<()> {
    // Inside, root's files look like anybody's.
    let copies = ssh::files_of_root(&args.home);
    // Nothing comes into effect here unless the unit grants CAP_SYS_ADMIN.
    caps::raise()?;
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(explain_unshare)?;
    writer.write()?;
    become_root_inside()?;
    mounts::prepare(args, subids, &copies)
}

fn become_root_inside() -> Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    // Groups first, the user last: the order that is right outside of a namespace too.
    setgroups(&[]).map_err(while_doing("drop supplementary groups"))?;
    setresgid(gid, gid, gid).map_err(while_doing("become group 0 of the namespace"))?;
    setresuid(uid, uid, uid).map_err(while_doing("become user 0 of the namespace"))
}

fn explain_unshare(error: Errno) -> Failure {
    let remedy = match error {
        Errno::EPERM => {
            "the machine forbids it to ordinary users (kernel.unprivileged_userns_clone, an AppArmor or SELinux rule); \
             'nix-unroot inspect' names the remedy"
        }
        Errno::ENOSPC => "user.max_user_namespaces is 0 or used up; raise it",
        Errno::EINVAL => "a name service library started a thread in the gate, which rules it out",
        _ => "see user_namespaces(7)",
    };
    Failure::new(format!("cannot create a user namespace: {error}: {remedy}"))
}
