//! What every run of the tests tries of the matrix.

use super::recover::recover_from_each;
use anyhow::Result;

/// One recovery of so many.
const SAMPLE: usize = 91;

#[test]
fn a_migration_that_dies_at_some_instants_arrives_or_goes_back() -> Result<()> {
    recover_from_each(0, SAMPLE)
}
