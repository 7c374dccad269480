//! This program, kept while what it undoes takes its installed place away: a removal must be able to go on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Session;
use super::intention::Intention;
use super::output::Output;
use crate::platform::paths;
use crate::system::files::{self, Ownership};

/// Where it is kept.
fn path() -> PathBuf {
    Path::new(paths::STATE_DIR).join("nix-unroot")
}

/// Keeps this program where it was installed by a run that is about to be undone. A link, where that can be: a disk may be full.
pub fn keep(session: &Session) {
    let (from, to) = (Path::new(paths::PROGRAM), path());
    if !is_the_installed_one() || are_same(from, &to) {
        return;
    }
    // One of an earlier removal, which was given up, may be older.
    files::forget_temporary(&to);
    let _ = fs::remove_file(&to);
    let copy = || files::replace(&to, &fs::read(from)?, Ownership::root(0o700));
    if let Err(error) = fs::hard_link(from, &to).and_then(|()| files::sync_parent(&to)).or_else(|_| copy()) {
        let (from, to) = (from.display(), to.display());
        session.output.message(&format!("{from} goes before Nix does, and cannot be kept as {to}: {error}"));
    }
}

/// Nothing is left to go on with.
pub fn forget() {
    // A program that stays costs room and nothing else.
    let _ = fs::remove_file(path());
}

/// What is to be known of a message that names nix-unroot: where that is, when it is not in its place. There may be what stood there before.
pub fn hint(output: &Output) {
    let (kept, installed) = (path(), Path::new(paths::PROGRAM));
    let is_other = || Intention::is_kept() && !are_same(installed, &kept);
    if kept.exists() && !is_the_installed_one() && (!installed.exists() || is_other()) {
        output.message(&format!("nix-unroot is kept as {}", kept.display()));
    }
}

/// Whether the process runs what is installed, by whatever name: `/usr/local/sbin` is a link on some systems.
fn is_the_installed_one() -> bool {
    let inode = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    let own = std::env::current_exe().and_then(|own| inode(&own));
    own.is_ok_and(|own| inode(Path::new(paths::PROGRAM)).is_ok_and(|installed| own == installed))
}

fn are_same(one: &Path, other: &Path) -> bool {
    fs::read(one).is_ok_and(|bytes| fs::read(other).is_ok_and(|others| bytes == others))
}
