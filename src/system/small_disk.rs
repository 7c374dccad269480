//! A small file system for tests of what happens on a full one; only root can have one, and only on Linux.

use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A file system in memory, which goes when this is dropped.
#[derive(Debug)]
pub struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// One of this many MiB.
    pub fn new(size: u32) -> Self {
        let place = tempfile::tempdir().unwrap();
        let options = format!("size={size}m");
        mount(Some("none"), place.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self(place)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Something of the test may be open there still.
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}
