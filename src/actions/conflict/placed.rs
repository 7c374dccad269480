//! Undoing what was put at a path as a whole.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::super::file_state::FileState;
use super::super::{Host, show};
use super::{Keep, Present, Wrote};
use crate::system::files::{self, Ownership};
use crate::system::trees;

/// Gives `path` back what stood there, unless somebody else changed it since: then as it was chosen.
///
/// # Errors
/// When there is a conflict without a choice; then nothing was changed.
pub fn undo_placed(path: &Path, before: &FileState, wrote: &Wrote, host: &Host<'_>) -> Result<()> {
    let now = Present::at(path)?;
    if now == Present::Absent || wrote.is(&now) || now == Present::of(before, host)? {
        return before.restore(path, host);
    }
    match host.choices.of(path, &now) {
        Some(Keep::Theirs) => {
            host.observer.note(&format!("{} is not what was written; it stays as it is", show(path)));
            Ok(())
        }
        Some(Keep::Ours) => {
            put_aside(path, &now, host)?;
            before.restore(path, host)
        }
        None => bail!(undecided(path)),
    }
}

/// An error when `path` holds neither what stood there nor what this step writes: somebody else was there since the
/// step began, and the run must not overwrite that.
///
/// # Errors
/// As said.
pub fn ensure_untouched(path: &Path, before: &FileState, wrote: &Wrote, host: &Host<'_>) -> Result<()> {
    let now = Present::at(path)?;
    if wrote.is(&now) || now == Present::of(before, host)? {
        return Ok(());
    }
    bail!("somebody else changed {} meanwhile: move it away, and try again", show(path))
}

/// What an undoing says that met a conflict which nobody was asked about.
pub fn undecided(path: &Path) -> String {
    format!(
        "somebody else changed {}, and nothing says whose version stays: nix-unroot rollback shows both",
        show(path)
    )
}

/// Keeps what is at `path` in the run's backups and tells where. A file stays where it is as well; anything else moves.
///
/// # Errors
/// When it cannot be kept; then it is still at `path`.
pub fn put_aside(path: &Path, now: &Present, host: &Host<'_>) -> Result<()> {
    let copy = unused_name(path, host);
    let context = || format!("cannot keep {} as {}", show(path), show(&copy));
    match now {
        Present::Absent => return Ok(()),
        Present::File(bytes) => files::replace(&copy, bytes, Ownership::root(0o600)).with_context(context)?,
        Present::Link(target) => {
            symlink(target, &copy).with_context(context)?;
            files::sync_parent(&copy).with_context(context)?;
            files::remove(path).with_context(context)?;
        }
        Present::Directory | Present::Special => match fs::rename(path, &copy) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                trees::copy(path, &copy).with_context(context)?;
                trees::remove(path).with_context(context)?;
                files::sync_parent(path).with_context(context)?;
            }
            other => {
                other.with_context(context)?;
                files::sync_parent(&copy).and_then(|()| files::sync_parent(path)).with_context(context)?;
            }
        },
    }
    host.observer.note(&format!("what was at {} is kept as {}", show(path), show(&copy)));
    Ok(())
}

/// `put-aside-NAME`, with a number when there is one of that name.
fn unused_name(path: &Path, host: &Host<'_>) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let first = host.backups.join(format!("put-aside-{name}"));
    let others = (2..).map(|number: u32| host.backups.join(format!("put-aside-{name}.{number}")));
    // The second iterator does not end, so there is one.
    std::iter::once(first).chain(others).find(|copy| fs::symlink_metadata(copy).is_err()).unwrap_or_default()
}
