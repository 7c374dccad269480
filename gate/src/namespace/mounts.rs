//! The mounts that the daemon sees and the host does not.
//!
//! Nothing is hidden from it: a garbage collection deletes a root whose target looks absent, so homes and `/tmp` stay as
//! they are, and what the host mounts later appears here too.

use super::{names, ssh};
use crate::args::Args;
use crate::builds::Subids;
use crate::{Result, while_doing};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Covered by the new devpts at the end, so it may serve as a place to work in before.
const PTS: &str = "/dev/pts";

/// Mounts what the daemon needs, with `copies` in the place of what they are copies of. The caller is root of a new user and mount
/// namespace.
///
/// # Errors
/// When a file cannot be read or a mount is refused.
pub fn prepare(args: &Args, subids: Subids, copies: &[ssh::Copy]) -> Result<()> {
    // Slave, not private: a home that is mounted later must not look absent.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC, None::<&str>)
        .map_err(while_doing("keep mounts from the host"))?;
    show_files(args, subids, copies)?;
    // The daemon gives a build's terminal to the build user, and the host's terminals belong to a group that the namespace lacks.
    filesystem("devpts", "mode=0620,ptmxmode=0666")
}

/// Shows the daemon an `/etc/passwd` and an `/etc/group` of its own (see [`names`]), and the copies.
fn show_files(args: &Args, subids: Subids, copies: &[ssh::Copy]) -> Result<()> {
    let passwd = names::passwd(&read("/etc/passwd")?, &args.home);
    let group = names::group(&read("/etc/group")?, &args.build_group, subids.last());
    // Two for accounts, one for the directory, and what a full list of copies takes.
    filesystem("tmpfs", "mode=0755,size=192m,nr_inodes=160")?;
    let accounts = [(Path::new("/etc/passwd"), &passwd), (Path::new("/etc/group"), &group)];
    let copies = copies.iter().map(|copy| (copy.path.as_path(), &copy.contents));
    for (number, (path, contents)) in accounts.into_iter().chain(copies).enumerate() {
        cover(number, path, contents)?;
    }
    // The files stay where they are bound; the directory they came from goes.
    umount2(PTS, MntFlags::MNT_DETACH).map_err(while_doing(format!("unmount {PTS}")))
}

fn filesystem(kind: &str, options: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some(kind), PTS, Some(kind), flags, Some(options))
        .map_err(while_doing(format!("mount a {kind} on {PTS}")))
}

fn cover(number: usize, path: &Path, contents: &[u8]) -> Result<()> {
    let file = Path::new(PTS).join(number.to_string());
    // Builds without a sandbox read them too, whatever the unit's umask is.
    fs::write(&file, contents)
        .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o644)))
        .map_err(while_doing(format!("write the daemon's {}", path.display())))?;
    mount(Some(&file), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(while_doing(format!("show the daemon its own {}", path.display())))
}

fn read(path: &str) -> Result<Vec<u8>> {
    fs::read(path).map_err(while_doing(format!("read {path}")))
}
