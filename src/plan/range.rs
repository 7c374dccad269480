//! Which ids builds get.

use super::options::Options;
use crate::facts::Facts;
use crate::findings;
use crate::types::SubidRange;

/// The range for build uids: the one that the user has already, or the one that was chosen (Nix's default without a
/// choice), or, when that meets somebody else's ids, the next free one of its size. `None` when there is none.
pub fn build_range(facts: &Facts, options: &Options) -> Option<SubidRange> {
    findings::free_range(facts, wanted_range(facts, options), &options.nix_user)
}

/// The range that is wanted, whoever else may have its ids.
pub fn wanted_range(facts: &Facts, options: &Options) -> SubidRange {
    let fits =
        |range: &SubidRange| range.count >= SubidRange::SLOT && range.count.is_multiple_of(SubidRange::SLOT);
    let mut own =
        facts.subuid.iter().filter(|entry| entry.owner == options.nix_user).map(|entry| entry.range);
    options.subid_range.or_else(|| own.find(fits)).unwrap_or(SubidRange::NIX_DEFAULT)
}
