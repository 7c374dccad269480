//! Linux: a mount namespace in which there is little more than the inputs.
//!
//! On Linux nix-unroot needs no broker: the daemon has a user namespace. This is how the broker is exercised, and for machines that forbid
//! user namespaces to ordinary users.

use super::Dirs;
use crate::args::Serve;
use crate::policy::{Build, StoreName};
use crate::tree::{self, kind, status};
use crate::{Failure, Result, processes, while_doing, work};
use nix::fcntl::{OFlag, RenameFlags, openat, readlinkat, renameat2};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::stat::{Mode, SFlag, fchmod};
use nix::unistd::{Gid, chroot, fchown, symlinkat};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Device files of every build.
const DEVICES: [&CStr; 6] = [c"full", c"null", c"random", c"tty", c"urandom", c"zero"];
/// Files that a build with network finds as they are here.
const NETWORK_FILES: [&CStr; 3] = [c"hosts", c"resolv.conf", c"services"];

/// Where a build finds its directory.
#[must_use]
pub fn build_dir(_: &Path) -> PathBuf {
    PathBuf::from("/build")
}

/// Makes the root directory of a build, with a mount point for each input.
///
/// # Errors
/// When an input is missing, or there is no room.
pub fn prepare(dir: &OwnedFd, store: &OwnedFd, serve: &Serve, build: &Build) -> Result<Dirs> {
    let cannot = || while_doing::<nix::Error>("make the root directory of a build");
    let open = Mode::from_bits_truncate(0o755);
    let root = tree::make(dir, c"root", open).map_err(cannot())?;
    let own = tree::make(&root, c"build", Mode::from_bits_truncate(0o700)).map_err(cannot())?;
    tree::make(&root, c"tmp", Mode::from_bits_truncate(0o1777)).map_err(cannot())?;
    tree::make(&root, c"proc", open).map_err(cannot())?;
    let dev = tree::make(&root, c"dev", open).map_err(cannot())?;
    for device in DEVICES {
        work::write(&dev, device, b"", None)?;
    }
    symlinkat(c"/proc/self/fd", &dev, c"fd").map_err(cannot())?;
    etc(&tree::make(&root, c"etc", open).map_err(cannot())?, serve, build)?;
    let mut made = root.try_clone().map_err(while_doing("make the root directory of a build"))?;
    for part in serve.store.components().filter(|part| matches!(part, Component::Normal(_))) {
        let name =
            CString::new(part.as_os_str().as_encoded_bytes()).map_err(while_doing("use the store's path"))?;
        made = tree::make(&made, &name, open).map_err(cannot())?;
    }
    fchown(&made, None, Some(Gid::from_raw(serve.gid))).map_err(cannot())?;
    fchmod(&made, Mode::from_bits_truncate(0o1775)).map_err(cannot())?;
    for input in &build.inputs {
        mount_point(store, &made, input)?;
    }
    Ok(Dirs { parent: root, build: own, made })
}

/// Accounts, as Nix's own sandbox has them, and what finding other machines needs.
fn etc(etc: &OwnedFd, serve: &Serve, build: &Build) -> Result<()> {
    let gid = serve.gid;
    work::write(etc, c"passwd", b"root:x:0:0::/build:/noshell\nnobody:x:65534:65534::/:/noshell\n", None)?;
    work::write(etc, c"group", format!("root:x:0:\nnixbld:!:{gid}:\nnogroup:x:65534:\n").as_bytes(), None)?;
    if !build.network {
        return work::write(etc, c"hosts", b"127.0.0.1 localhost\n::1 localhost\n", None);
    }
    for name in NETWORK_FILES {
        // Not all machines have all of them.
        if let Ok(text) = std::fs::read(format!("/etc/{}", name.to_string_lossy())) {
            work::write(etc, name, &text, None)?;
        }
    }
    Ok(())
}

fn mount_point(store: &OwnedFd, made: &OwnedFd, input: &StoreName) -> Result<()> {
    let name = input.as_c_str();
    let cannot = || while_doing::<nix::Error>(format!("prepare input {}", input.as_path().display()));
    match kind(&status(store, name).map_err(cannot())?) {
        SFlag::S_IFDIR => tree::make(made, name, Mode::from_bits_truncate(0o755)).map(drop).map_err(cannot()),
        SFlag::S_IFREG => work::write(made, name, b"", None),
        SFlag::S_IFLNK => {
            let target = readlinkat(store, name).map_err(cannot())?;
            symlinkat(target.as_os_str(), made, name).map_err(cannot())
        }
        _ => {
            Err(Failure::new(format!("input {} is no file, directory or symlink", input.as_path().display())))
        }
    }
}

/// Puts this process, which is still root's, into the build's world.
///
/// # Errors
/// When the kernel refuses.
pub fn enter(work: &Path, serve: &Serve, build: &Build) -> Result<()> {
    let cannot = |what: &str| while_doing::<nix::Error>(format!("{what} of a build"));
    let mut spaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    if !build.network {
        spaces |= CloneFlags::CLONE_NEWNET;
    }
    unshare(spaces).map_err(cannot("make the namespaces"))?;
    let none: Option<&CStr> = None;
    mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(cannot("separate the mounts"))?;
    // By name, for a directory that was opened before belongs to the mounts outside. On the way there only root can change anything.
    let root = work.join("root");
    for device in DEVICES {
        let name = device.to_string_lossy();
        let here = openat(
            nix::fcntl::AT_FDCWD,
            format!("/dev/{name}").as_str(),
            OFlag::O_PATH | OFlag::O_CLOEXEC,
            Mode::empty(),
        );
        let here = here.map_err(cannot("open a device"))?;
        bind(&of(&here), &root.join("dev").join(&*name), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC)?;
    }
    // Other users' processes are nobody's business (proc(5), hidepid).
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(c"proc"), &root.join("proc"), Some(c"proc"), flags, Some(c"hidepid=2"))
        .map_err(cannot("mount /proc"))?;
    let store = nix::fcntl::open(
        &serve.store,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(cannot("open the inputs"))?;
    let inside = root.join(serve.store.strip_prefix("/").unwrap_or(&serve.store));
    for input in &build.inputs {
        // The very thing by descriptor: the daemon's account may put a link there at any time.
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let found =
            openat(&store, input.as_c_str(), flags, Mode::empty()).map_err(cannot("open an input"))?;
        let link =
            kind(&nix::sys::stat::fstat(&found).map_err(cannot("look at an input"))?) == SFlag::S_IFLNK;
        if !link {
            let readonly = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            bind(&of(&found), &inside.join(input.as_path()), readonly)?;
        }
    }
    chroot(&root).map_err(cannot("enter the root directory"))
}

fn bind(from: &Path, to: &Path, flags: MsFlags) -> Result<()> {
    let none: Option<&CStr> = None;
    mount(Some(from), to, none, MsFlags::MS_BIND, none)
        .and_then(|()| mount(none, to, none, MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags, none))
        .map_err(while_doing(format!("mount {} for a build", to.display())))
}

/// A path to this very file, whatever happens to its name.
fn of(file: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
}

/// Program and words to execute.
///
/// # Errors
/// Never here.
pub fn command(_: &Serve, build: &Build, _: &Path) -> Result<(CString, Vec<CString>)> {
    Ok((build.builder.clone(), build.argv.clone()))
}

/// No set-id program gives this process anything from here on (prctl(2)).
///
/// # Errors
/// When the kernel refuses.
pub fn no_new_privileges() -> nix::Result<()> {
    prctl::set_no_new_privs()
}

/// Is a process of this uid alive, by any of its four ids?
///
/// # Errors
/// When `/proc` cannot be read: then nobody knows.
pub fn is_alive(uid: u32) -> Result<bool> {
    let cannot = || while_doing::<std::io::Error>("list processes in /proc");
    for entry in std::fs::read_dir("/proc").map_err(cannot())? {
        let entry = entry.map_err(cannot())?;
        if entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit)
            // One that is gone by now has no status.
            && let Ok(status) = std::fs::read(entry.path().join("status"))
            && processes::is_of(&status, uid)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Linux has nothing that keeps root from removing a file of a user without privileges.
///
/// # Errors
/// Never.
pub fn clear_flags(_: &OwnedFd, _: &CStr) -> nix::Result<()> {
    Ok(())
}

/// Renames an entry of one directory to the same name in another, where nothing may be yet.
///
/// # Errors
/// When something is there.
pub fn rename_new(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> nix::Result<()> {
    renameat2(from, name, to, name, RenameFlags::RENAME_NOREPLACE)
}
