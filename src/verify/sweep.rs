//! What a check that was killed left behind, and its end.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::gc_roots::{self, Plant};
use super::leftovers::{Leftovers, REMEDY};
use super::{CheckError, Target};
use crate::daemon::Connection;
use crate::types::STORE_DIR;
use crate::types::StorePath;

/// What everything is called that a check makes, before the part that nobody can guess.
pub(super) const NAME: &str = "nix-unroot-verify-";
/// Most store paths that are removed at a time. A check makes a few; anybody who may build can make a million of such names.
const MOST: usize = 100;

/// Removes what checks of this program made and could not remove any more: planted roots, their links below
/// `gcroots/auto`, and store paths, which the daemon deletes. Nothing happens when nothing is left.
///
/// # Errors
/// When something of it cannot be removed, or there is more of it than is removed at a time.
pub fn sweep(target: &Target) -> Result<(), CheckError> {
    for ground in &target.planting_grounds {
        // A ground that cannot be read is none in which a root could be planted.
        for entry in fs::read_dir(ground).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|name| name.starts_with(&format!(".{NAME}")));
            // Anybody may write to some grounds; what we made is root's and open to nobody else.
            let made =
                entry.metadata().is_ok_and(|it| it.is_dir() && it.uid() == 0 && it.mode() & 0o777 == 0o700);
            if ours && made {
                Plant::left_behind(entry.path(), &target.state_dir).remove()?;
            }
        }
    }
    let planted = |link: &Path| {
        let directory = link.parent().and_then(|directory| directory.file_name()?.to_str());
        directory.is_some_and(|name| name.starts_with(&format!(".{NAME}"))) && !link.exists()
    };
    gc_roots::forget(&target.state_dir, planted)?;
    sweep_store(target)
}

fn sweep_store(target: &Target) -> Result<(), CheckError> {
    let (left, more) = named_as_ours(Path::new(STORE_DIR))?;
    if left.is_empty() {
        return reserve_again(target);
    }
    let mut leftovers = Leftovers::new(&target.socket)?;
    left.into_iter().for_each(|path| leftovers.push(path));
    leftovers.remove()?;
    if more {
        return Err(CheckError::Other(format!(
            "more than {MOST} store paths are named as a check names its own: {REMEDY}"
        )));
    }
    Ok(())
}

/// Nix keeps some space for its own bookkeeping, which it gives up when it deletes, and takes again when it next opens the store
/// (`reservedPath` in Nix's `src/libstore/gc.cc` and `local-store.cc`). A check that died between the two left the store without.
fn reserve_again(target: &Target) -> Result<(), CheckError> {
    let reserved = target.state_dir.join("db/reserved");
    if fs::symlink_metadata(reserved).is_err() {
        // Each connection has a process of its own, which opens the store before it answers.
        Connection::open(&target.socket)?;
    }
    Ok(())
}

/// Store paths with the name of what a check makes, [`MOST`] of them; and whether there are more.
fn named_as_ours(store: &Path) -> Result<(Vec<StorePath>, bool), CheckError> {
    let entries = fs::read_dir(store).map_err(CheckError::io("cannot read", store))?;
    let mut ours = entries
        .flatten()
        .filter_map(|entry| StorePath::from_base_name(entry.file_name().to_str()?))
        .filter(|path| path.base_name()[33..].starts_with(NAME));
    Ok((ours.by_ref().take(MOST).collect(), ours.next().is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_full_of_such_names_is_swept_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: String| fs::write(dir.path().join(name), "").unwrap();
        (0..MOST).for_each(|number| make(format!("{number:032}-{NAME}x")));
        make(format!("{}-hello", "1".repeat(32)));
        make(format!("{NAME}x"));
        let (ours, more) = named_as_ours(dir.path()).unwrap();
        assert_eq!((ours.len(), more), (MOST, false));
        make(format!("{}-{NAME}x", "1".repeat(32)));
        let (ours, more) = named_as_ours(dir.path()).unwrap();
        assert_eq!((ours.len(), more), (MOST, true));
    }

    /// Else what a killed check left could be remembered as somebody's root, for ever.
    #[test]
    fn the_scanner_knows_what_is_planted() {
        let scanner = include_str!("../../root-scan/src/gcroots.rs");
        assert!(scanner.contains(&format!(r#"const PLANTED: &[u8] = b".{NAME}";"#)));
    }
}
