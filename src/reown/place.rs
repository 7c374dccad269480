//! Where a directory lies, and lists of names, both small enough to keep a great many.

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use rustix::fs::FileType;

use super::inode::{Id, Stat};

/// A directory of the tree. Its path is kept as a chain, so that 5,000 levels do not cost 5,000 whole paths.
#[derive(Debug)]
pub struct Place {
    pub parent: Option<Arc<Place>>,
    /// Empty for the root.
    pub name: Box<[u8]>,
    /// How many bytes its path has.
    pub length: usize,
    pub id: Id,
    /// The directory or one above it was changed since the pass began, perhaps moved: it may be met twice, so names of
    /// multi-link inodes below it must not be counted.
    pub tainted: bool,
    /// Only root can change what is in it, at least until its own owner is changed.
    pub sheltered: bool,
    /// The directory is to change hands when its entries, other than directories, have; as it was when it was opened.
    pub late: Option<Stat>,
    /// Lists of its entries that are still being dealt with, and one more until it is read to the end.
    pub unread: AtomicUsize,
}

/// An open directory.
#[derive(Debug)]
pub struct Dir {
    pub fd: OwnedFd,
    pub place: Arc<Place>,
}

impl Place {
    /// Of a directory that was just opened: neither tainted nor sheltered, and not read.
    pub fn new(parent: Option<&Arc<Place>>, name: &[u8], stat: &Stat) -> Self {
        Self {
            parent: parent.cloned(),
            name: name.into(),
            length: parent.map_or(0, |parent| parent.length + 1) + name.len(),
            id: stat.id,
            tainted: false,
            sheltered: false,
            late: None,
            unread: AtomicUsize::new(1),
        }
    }

    /// The path of `name` in this directory, relative to the root.
    pub fn join(&self, name: &[u8]) -> Vec<u8> {
        let mut parts = vec![name];
        let mut at = Some(self);
        while let Some(place) = at {
            parts.push(&place.name);
            at = place.parent.as_deref();
        }
        parts.reverse();
        let parts: Vec<&[u8]> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(&b'/')
    }
}

impl Drop for Place {
    /// Without recursion: a tree may be deeper than the stack.
    fn drop(&mut self) {
        let mut parent = self.parent.take();
        while let Some(mut place) = parent.and_then(Arc::into_inner) {
            parent = place.parent.take();
        }
    }
}

/// Names of directory entries, in one buffer.
#[derive(Debug, Default)]
pub struct Names {
    bytes: Vec<u8>,
    items: Vec<Item>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    inode: u64,
    start: u32,
    kind: FileType,
}

impl Names {
    pub fn push(&mut self, name: &CStr, inode: u64, kind: FileType) {
        // A list is given on long before it has 4 GiB: `walk::SUBDIRS_AT_ONCE`.
        let start = self.bytes.len() as u32;
        self.items.push(Item { inode, start, kind });
        self.bytes.extend_from_slice(name.to_bytes_with_nul());
    }

    /// Takes the last name off.
    pub fn pop(&mut self, into: &mut Vec<u8>) -> bool {
        let Some(item) = self.items.pop() else { return false };
        into.clear();
        into.extend_from_slice(self.name(item).to_bytes_with_nul());
        if self.items.is_empty() {
            *self = Self::default();
        }
        true
    }

    /// In the order of inode numbers, which on ext4 and XFS is the order on the disk.
    pub fn sort(&mut self) {
        self.items.sort_unstable_by_key(|item| item.inode);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&CStr, u64, FileType)> {
        self.items.iter().map(|&item| (self.name(item), item.inode, item.kind))
    }

    /// Moves half of the names, rounded up, to a new list.
    pub fn split(&mut self) -> Self {
        let mut half = Self::default();
        let keep = self.items.len() / 2;
        for item in self.items.split_off(keep) {
            half.push(self.name(item), item.inode, item.kind);
        }
        if self.items.is_empty() {
            *self = Self::default();
        }
        half
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.items.clear();
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Bytes of memory that the names take.
    pub fn size(&self) -> usize {
        self.bytes.len() + self.items.len() * size_of::<Item>()
    }

    fn name(&self, item: Item) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes[item.start as usize..]).unwrap_or_default()
    }
}
