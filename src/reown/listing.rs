//! Reading a directory in pieces.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::FileType;

/// Bytes of entries read at once.
#[cfg(target_os = "linux")]
const READ: usize = 128 << 10;

/// Reads directories, one after the other.
#[derive(Debug)]
pub struct Reader {
    #[cfg(target_os = "linux")]
    buffer: Vec<std::mem::MaybeUninit<u8>>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            buffer: vec![std::mem::MaybeUninit::uninit(); READ],
        }
    }
}

impl Reader {
    /// Tells `entry` the name, inode number and type of the next entries of `dir`, without `.` and `..`, and moves `position` behind
    /// them; true when they were the last.
    #[cfg(target_os = "linux")]
    pub fn read(
        &mut self,
        dir: &OwnedFd,
        position: &mut u64,
        mut entry: impl FnMut(&CStr, u64, FileType),
    ) -> rustix::io::Result<bool> {
        let mut entries = rustix::fs::RawDir::new(dir.as_fd(), &mut self.buffer);
        loop {
            let Some(next) = entries.next().transpose()? else { return Ok(true) };
            *position = next.next_entry_cookie();
            if !is_dot(next.file_name()) {
                entry(next.file_name(), next.ino(), next.file_type());
            }
            if entries.is_buffer_empty() {
                return Ok(false);
            }
        }
    }

    /// The same, all entries at once: positions mean nothing to another open directory here.
    #[cfg(not(target_os = "linux"))]
    pub fn read(
        &mut self,
        dir: &OwnedFd,
        _: &mut u64,
        mut entry: impl FnMut(&CStr, u64, FileType),
    ) -> rustix::io::Result<bool> {
        for next in rustix::fs::Dir::read_from(dir.as_fd())? {
            let next = next?;
            if !is_dot(next.file_name()) {
                entry(next.file_name(), next.ino(), next.file_type());
            }
        }
        Ok(true)
    }
}

fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}
