//! The mounts that the daemon sees and the host does not.
//!
//! Nothing is hidden from it: a garbage collection deletes a root whose target looks absent, so homes and `/tmp` stay as
//! they are, and what the host mounts later appears here too.

use super::names;
use crate::args::Args;
use crate::{Result, while_doing};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::path::Path;

/// Covered by the new devpts at the end, so it may serve as a place to work in before.
const PTS: &str = "/dev/pts";

/// Mounts what the daemon needs. The caller is root of a new user and mount namespace.
///
/// # Errors
/// When a file cannot be read or a mount is refused.
pub fn prepare(args: &Args) -> Result<()> {
    // Slave, not private: a home that is mounted later must not look absent.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)
        .map_err(while_doing("keep mounts from the host"))?;
    show_accounts(args)?;
    // The daemon gives a build's terminal to the build user, and the host's terminals belong to a group that the namespace lacks.
    filesystem("devpts", "mode=0620,ptmxmode=0666")
}

/// Shows the daemon an `/etc/passwd` and an `/etc/group` of its own. See [`names`] for what is in them.
fn show_accounts(args: &Args) -> Result<()> {
    let passwd = names::passwd(&read("/etc/passwd")?, &args.home);
    let group = names::group(&read("/etc/group")?, &args.build_group, args.subids.last());
    filesystem("tmpfs", "mode=0755,size=64m,nr_inodes=16")?;
    cover("/etc/passwd", &passwd)?;
    cover("/etc/group", &group)?;
    // The files stay where they are bound; the directory they came from goes.
    umount2(PTS, MntFlags::MNT_DETACH).map_err(while_doing(format!("unmount {PTS}")))
}

fn filesystem(kind: &str, options: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some(kind), PTS, Some(kind), flags, Some(options))
        .map_err(while_doing(format!("mount a {kind} on {PTS}")))
}

fn cover(path: &str, contents: &[u8]) -> Result<()> {
    // `path` is one of two constants, both with a file name.
    let name = Path::new(path).file_name().unwrap_or_default();
    let file = Path::new(PTS).join(name);
    fs::write(&file, contents).map_err(while_doing(format!("write the daemon's {path}")))?;
    mount(Some(&file), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(while_doing(format!("show the daemon its own {path}")))
}

fn read(path: &str) -> Result<Vec<u8>> {
    fs::read(path).map_err(while_doing(format!("read {path}")))
}
