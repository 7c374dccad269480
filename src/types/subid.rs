//! Subordinate id ranges, as in `/etc/subuid` and `/etc/subgid` (subuid(5)).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A contiguous range of uids or gids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema, Serialize, Deserialize)]
pub struct SubidRange {
    /// The first id.
    pub start: u32,
    /// How many ids; never 0, and `start + count` never passes 2^32.
    pub count: u32,
}

impl SubidRange {
    /// Nix's own default: `start-id` 0x34000000 and `id-count` 128 slots of 65536
    /// (`src/libstore/include/nix/store/local-settings.hh`).
    pub const NIX_DEFAULT: Self = Self { start: 872_415_232, count: 8_388_608 };
    /// Ids that one build takes (`src/libstore/unix/user-lock.cc`, `AutoUserLock`).
    pub const SLOT: u32 = 65_536;

    /// A range that is not empty and ends within the 32-bit ids; `None` otherwise.
    pub fn new(start: u32, count: u32) -> Option<Self> {
        let range = Self { start, count };
        (count > 0 && start.checked_add(count - 1).is_some_and(|last| last < u32::MAX)).then_some(range)
    }

    /// The last id.
    pub fn last(self) -> u32 {
        self.start + (self.count - 1)
    }

    /// Whether `id` lies in the range.
    pub fn contains(self, id: u32) -> bool {
        (self.start..=self.last()).contains(&id)
    }

    /// Whether the two ranges share an id.
    pub fn overlaps(self, other: Self) -> bool {
        self.start <= other.last() && other.start <= self.last()
    }
}

/// One line of `/etc/subuid` or `/etc/subgid`.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct SubidEntry {
    /// A user's name or decimal uid, as it stands in the file.
    pub owner: String,
    /// The ids.
    pub range: SubidRange,
}

/// The entries of a subid file. Lines that are not `OWNER:START:COUNT` are passed over, as shadow does.
pub fn parse_subid_file(text: &str) -> Vec<SubidEntry> {
    let entry = |line: &str| {
        let mut fields = line.trim().split(':');
        let (owner, start, count) = (fields.next()?, fields.next()?, fields.next()?);
        if owner.is_empty() || owner.starts_with('#') || fields.next().is_some() {
            return None;
        }
        let range = SubidRange::new(start.trim().parse().ok()?, count.trim().parse().ok()?)?;
        Some(SubidEntry { owner: owner.to_owned(), range })
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_inclusive_of_both_ends() {
        let range = |start, count| SubidRange::new(start, count).unwrap();
        assert!(range(100, 10).overlaps(range(109, 1)));
        assert!(!range(100, 10).overlaps(range(110, 1)));
        assert!(range(0, 4_000_000_000).overlaps(SubidRange::NIX_DEFAULT));
    }

    #[test]
    fn empty_and_overflowing_ranges_do_not_exist() {
        assert_eq!(SubidRange::new(1, 0), None);
        assert_eq!(SubidRange::new(u32::MAX - 1, 2), None);
        assert!(SubidRange::new(u32::MAX - 1, 1).is_some());
    }

    #[test]
    fn reads_lines_as_shadow_does() {
        let entries =
            parse_subid_file("alice:100000:65536\n# no\n\n1000:200000:10\nbad\nbob:x:1\ncarol:1:0\n");
        let owners: Vec<_> = entries.iter().map(|entry| entry.owner.as_str()).collect();
        assert_eq!(owners, ["alice", "1000"]);
    }
}
