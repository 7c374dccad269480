//! Which inodes have a name outside the tree: names are counted as they are met.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use super::inode::Id;

/// More shards than threads, so that they seldom wait for each other.
const SHARDS: usize = 16;

/// How many names of each inode with several were met. An entry is 16 bytes plus one of the table's own, twice that
/// when the table has just grown, and goes when the last name is met.
#[derive(Debug, Default)]
pub struct Links {
    shards: [Mutex<Shard>; SHARDS],
}

/// Device -> inode -> names met. The outer map has one entry, or on btrfs one a subvolume.
type Shard = HashMap<u64, HashMap<u64, u32>>;

impl Links {
    /// Counts one name of an inode that has `links`. True when it was the last: all of them are in the tree.
    pub fn met_all(&self, (device, inode): Id, links: u32) -> bool {
        let mut shard = self.shard(inode).lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let inodes = shard.entry(device).or_default();
        let met = inodes.entry(inode).or_insert(0);
        *met += 1;
        let all = *met == links;
        if all {
            inodes.remove(&inode);
        }
        all
    }

    /// The inodes of which some name was not met.
    pub fn incomplete(self) -> HashSet<Id> {
        let mut left = HashSet::new();
        for shard in self.shards {
            let shard = shard.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
            for (device, inodes) in shard {
                left.extend(inodes.into_keys().map(|inode| (device, inode)));
            }
        }
        left
    }

    fn shard(&self, inode: u64) -> &Mutex<Shard> {
        // Fibonacci hashing: neighbouring inodes go to different shards.
        &self.shards[(inode.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60) as usize % SHARDS]
    }
}
