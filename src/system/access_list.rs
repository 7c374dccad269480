//! Access control lists (acl(5)) in the form in which the kernel keeps them: linux/posix_acl_xattr.h.

use anyhow::{Result, bail, ensure};

/// The extended attribute that holds the list of a file or directory.
pub const ACCESS_LIST: &str = "system.posix_acl_access";
/// Read, write and search.
pub const ALL: u16 = 0o7;

/// `POSIX_ACL_XATTR_VERSION`.
const VERSION: u32 = 2;
/// The id of entries that have none (`ACL_UNDEFINED_ID`).
const NO_ID: u32 = u32::MAX;
const USER_OBJ: u16 = 0x01;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// A list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessList {
    entries: Vec<Entry>,
}

/// Whom an entry is about (one of the tags, and an id), and what they may do. In the order of the kernel's: by tag, then by id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    tag: u16,
    id: u32,
    permissions: u16,
}

impl AccessList {
    /// What the permission bits of `mode` say, as a list.
    pub fn of_mode(mode: u32) -> Self {
        let entry = |tag, shift: u32| Entry { tag, id: NO_ID, permissions: ((mode >> shift) & 0o7) as u16 };
        Self { entries: vec![entry(USER_OBJ, 6), entry(GROUP_OBJ, 3), entry(OTHER, 0)] }
    }

    /// Reads the value of [`ACCESS_LIST`].
    ///
    /// # Errors
    /// When it has another version or length than it should.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let Some((version, rest)) = bytes.split_first_chunk::<4>() else {
            bail!("an access control list without its version")
        };
        ensure!(u32::from_le_bytes(*version) == VERSION, "an access control list of an unknown version");
        let (entries, left) = rest.as_chunks::<8>();
        ensure!(left.is_empty(), "an access control list with half an entry");
        let entry = |&[t0, t1, p0, p1, i0, i1, i2, i3]: &[u8; 8]| Entry {
            tag: u16::from_le_bytes([t0, t1]),
            permissions: u16::from_le_bytes([p0, p1]),
            id: u32::from_le_bytes([i0, i1, i2, i3]),
        };
        Ok(Self { entries: entries.iter().map(entry).collect() })
    }

    /// The value of [`ACCESS_LIST`].
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.entries {
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend(entry.permissions.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }

    /// What the entry for the group `gid` allows, when there is one and the mask lets all of it count.
    pub fn group(&self, gid: u32) -> Option<u16> {
        let permissions = self.find(GROUP, gid)?.permissions;
        let mask = self.find(MASK, NO_ID).map_or(ALL, |mask| mask.permissions);
        Some(permissions & mask)
    }

    /// Lets the group `gid` do this, and makes the mask wide enough for it and for what counted before.
    pub fn allow_group(&mut self, gid: u32, permissions: u16) {
        let of_group = self.find(GROUP_OBJ, NO_ID).map_or(0, |entry| entry.permissions);
        let mask = self.find(MASK, NO_ID).map_or(of_group, |mask| mask.permissions);
        self.set(Entry { tag: GROUP, id: gid, permissions });
        self.set(Entry { tag: MASK, id: NO_ID, permissions: mask | permissions });
    }

    /// Takes the entry for the group `gid` out; the rest stays as it is.
    pub fn forget_group(&mut self, gid: u32) {
        self.entries.retain(|entry| (entry.tag, entry.id) != (GROUP, gid));
    }

    /// Whether it says more than permission bits can.
    pub fn is_extended(&self) -> bool {
        self.entries.iter().any(|entry| ![USER_OBJ, GROUP_OBJ, MASK, OTHER].contains(&entry.tag))
    }

    fn find(&self, tag: u16, id: u32) -> Option<&Entry> {
        self.entries.iter().find(|entry| (entry.tag, entry.id) == (tag, id))
    }

    fn set(&mut self, new: Entry) {
        self.entries.retain(|entry| (entry.tag, entry.id) != (new.tag, new.id));
        self.entries.push(new);
        self.entries.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_and_goes() {
        let plain = AccessList::of_mode(0o1775);
        let mut list = plain.clone();
        list.allow_group(77, ALL);
        assert_eq!(list.group(77), Some(ALL));
        assert!(list.is_extended() && !plain.is_extended());
        let entries: Vec<_> = list.entries.iter().map(|entry| (entry.tag, entry.permissions)).collect();
        assert_eq!(entries, [(USER_OBJ, 7), (GROUP_OBJ, 7), (GROUP, 7), (MASK, 7), (OTHER, 5)]);
        assert_eq!(AccessList::parse(&list.to_bytes()).unwrap(), list);
        list.forget_group(77);
        assert!(!list.is_extended());
    }

    #[test]
    fn what_the_mask_takes_away_does_not_count() {
        let mut list = AccessList::of_mode(0o755);
        list.allow_group(5, 0o5);
        list.allow_group(6, ALL);
        assert_eq!((list.group(5), list.group(6)), (Some(0o5), Some(ALL)));
        list.set(Entry { tag: MASK, id: NO_ID, permissions: 0o4 });
        assert_eq!((list.group(5), list.group(7)), (Some(0o4), None));
    }

    #[test]
    fn what_is_not_a_list_is_refused() {
        for bytes in [&b""[..], b"\x02\0\0", b"\x03\0\0\0", b"\x02\0\0\0\x01\0\x07\0"] {
            assert!(AccessList::parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
