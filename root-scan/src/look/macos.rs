//! macOS: by directories that are held open, and the UUID of the volume on which they lie.
//!
//! None of this could be run where it was written: it was compiled and linked for aarch64-apple-darwin.
#![allow(unsafe_code)] // fstatfs, fgetattrlist and getfsstat have no wrapper that shows what is needed

use std::ffi::{CStr, OsStr, OsString};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::libc;
use nix::sys::stat::SFlag;

use super::{Kind, Mount, Outcome, longest};
use crate::doubt::Doubt;
use crate::sys;

/// Looks without a child, for the child itself and for tests.
#[derive(Debug)]
pub struct Direct<'a> {
    /// There is one root directory, and no procfs.
    _root: BorrowedFd<'a>,
}

impl<'a> Direct<'a> {
    /// Both are Linux's concern.
    pub fn new(root: BorrowedFd<'a>, _: &'a Path) -> Self {
        Self { _root: root }
    }

    /// Looks at one path. Which file a process holds is Linux's question.
    pub fn one(&mut self, kind: Kind, path: &Path) -> Outcome {
        match kind {
            Kind::Lies => self.look(path).unwrap_or_else(Outcome::Unseen),
            Kind::Named => Outcome::Unseen(Errno::ENOSYS),
        }
    }

    /// The nearest existing parent is held open while the name in it is looked at: so no mount or unmount in between can pair an absence with
    /// the wrong file system.
    fn look(&self, path: &Path) -> nix::Result<Outcome> {
        let mut missing = path;
        while let Some(parent) = missing.parent() {
            let name = missing.file_name().unwrap_or(OsStr::new("."));
            // With the dot, a symlink is followed.
            match sys::open_path(AT_FDCWD, &parent.join(".")) {
                Ok(found) => match sys::status(&found, name) {
                    Ok(_) if missing != path => return below(&found, name),
                    Ok(status) => return present(&found, name, status.st_uid),
                    Err(Errno::ENOENT) => return Ok(Outcome::Absent(mount(&found)?)),
                    Err(errno) => return Err(errno),
                },
                Err(Errno::ENOENT | Errno::ENOTDIR) => missing = parent,
                Err(errno) => return Err(errno),
            }
        }
        Ok(Outcome::Absent(None))
    }
}

/// Something is there that could not be entered: below a file there is nothing; a link that leads nowhere vouches for nothing.
fn below(parent: &OwnedFd, name: &OsStr) -> nix::Result<Outcome> {
    let plain = sys::is_plain(&sys::status(parent, name)?);
    Ok(Outcome::Absent(if plain { mount(parent)? } else { None }))
}

fn present(parent: &OwnedFd, name: &OsStr, owner: u32) -> nix::Result<Outcome> {
    let mount = mount(parent)?;
    let kind = SFlag::from_bits_truncate(sys::status(parent, name)?.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFLNK {
        return Ok(Outcome::Other(mount));
    }
    Ok(Outcome::Link { text: sys::read_link(parent, name)?, mount, owner })
}

/// Mount point, type and UUID. A volume without a UUID (a server's) vouches for no absence.
fn mount(dir: &OwnedFd) -> nix::Result<Mount> {
    // SAFETY: all bytes zero is a valid statfs, and the kernel writes one over it.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open, and the result has room.
    Errno::result(unsafe { libc::fstatfs(dir.as_raw_fd(), &raw mut found) })?;
    let Some(uuid) = uuid(dir) else { return Ok(None) };
    let mut text = Vec::new();
    // SAFETY: the kernel ends both with a NUL inside of the array.
    let (point, kind) =
        unsafe { (CStr::from_ptr(found.f_mntonname.as_ptr()), CStr::from_ptr(found.f_fstypename.as_ptr())) };
    for part in [point.to_bytes(), kind.to_bytes()] {
        text.extend(part);
        text.push(b' ');
    }
    text.extend(uuid.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()));
    Ok(Some(text))
}

/// `ATTR_VOL_UUID` (getattrlist(2)): a length, then 16 bytes.
fn uuid(dir: &OwnedFd) -> Option<[u8; 16]> {
    let mut which = libc::attrlist {
        bitmapcount: libc::ATTR_BIT_MAP_COUNT,
        reserved: 0,
        commonattr: 0,
        volattr: libc::ATTR_VOL_INFO | libc::ATTR_VOL_UUID,
        dirattr: 0,
        fileattr: 0,
        forkattr: 0,
    };
    let mut buffer = [0_u8; 20];
    // SAFETY: the list is valid, and the buffer as long as is said.
    let done = unsafe {
        libc::fgetattrlist(
            dir.as_raw_fd(),
            (&raw mut which).cast(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
        )
    };
    let (length, uuid) = buffer.split_first_chunk::<4>()?;
    let uuid: [u8; 16] = uuid.try_into().ok()?;
    (done == 0 && u32::from_ne_bytes(*length) == 20 && uuid != [0; 16]).then_some(uuid)
}

/// The mount point of the mount on which `path` lies, by the text alone.
///
/// # Errors
/// When the table of mounts cannot be read.
pub fn mount_of(_: &Path, path: &Path) -> Result<PathBuf, Doubt> {
    let unreadable = |errno| Doubt::unreadable("/", errno);
    // SAFETY: without a buffer it only counts.
    let count = unsafe { libc::getfsstat(std::ptr::null_mut(), 0, libc::MNT_NOWAIT) };
    let count = usize::try_from(count).map_err(|_| unreadable(Errno::last()))?;
    // SAFETY: all bytes zero is a valid statfs.
    let mut table: Vec<libc::statfs> = vec![unsafe { std::mem::zeroed() }; count + 16];
    let size = i32::try_from(size_of_val(table.as_slice())).unwrap_or(i32::MAX);
    // SAFETY: the buffer is writable, and as long as is said. It does not ask the file systems themselves.
    let count = unsafe { libc::getfsstat(table.as_mut_ptr(), size, libc::MNT_NOWAIT) };
    let count = usize::try_from(count).map_err(|_| unreadable(Errno::last()))?;
    let points = table.iter().take(count).map(|found| {
        // SAFETY: the kernel ends it with a NUL inside of the array.
        let point = unsafe { CStr::from_ptr(found.f_mntonname.as_ptr()) };
        PathBuf::from(OsString::from_vec(point.to_bytes().to_vec()))
    });
    Ok(longest(points, path))
}
