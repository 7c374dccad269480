//! Undoing what was put at a path as a whole.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::super::file_state::FileState;
use super::super::{Host, show};
use super::{Keep, Present, Wrote};
use crate::system::files::{self, Ownership};
use crate::system::{checkpoint, kernel, trees};

/// Gives `path` back what stood there, unless somebody else changed it since: then as it was chosen. What the step wrote had the owner and
/// mode of what stood there.
///
/// # Errors
/// When there is a conflict without a choice; then nothing was changed.
pub fn undo_placed(path: &Path, before: &FileState, wrote: &Wrote, host: &Host<'_>) -> Result<()> {
    undo(path, before, wrote, None, host)
}

/// As [`undo_placed`], of a step that gave the file an owner and mode of its own.
///
/// # Errors
/// As there.
pub fn undo_owned(
    path: &Path,
    before: &FileState,
    wrote: &Wrote,
    ours: Ownership,
    host: &Host<'_>,
) -> Result<()> {
    undo(path, before, wrote, Some(ours), host)
}

fn undo(
    path: &Path,
    before: &FileState,
    wrote: &Wrote,
    ours: Option<Ownership>,
    host: &Host<'_>,
) -> Result<()> {
    let now = Present::at(path)?;
    if now == Present::Absent || wrote.is(&now) || now == Present::of(before, host)? {
        return before.restore_over(path, ours, host);
    }
    match host.choices.of(path, &now) {
        Some(Keep::Theirs) => {
            files::forget_temporary(path);
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

/// Keeps what is at `path` in the run's backups and tells where. A file that could be read stays where it is as well; anything else moves.
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
        Present::Long { .. } | Present::Directory | Present::Special => match fs::rename(path, &copy) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                move_across(path, &copy).with_context(context)?;
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

/// Moves what is at `path` to another file system: it is at `path` until all of it is at `copy`, on the disk. Half a copy of an attempt that
/// was killed never has that name.
fn move_across(path: &Path, copy: &Path) -> Result<()> {
    let directory = copy.parent().context("a copy lies in a directory")?;
    let half = directory.join("half-put-aside");
    trees::remove(&half)?;
    trees::copy(path, &half)?;
    kernel::sync_file_system(File::open(directory)?)?;
    checkpoint::inside("tree-copied");
    fs::rename(&half, copy)?;
    files::sync_parent(copy)?;
    trees::remove(path)?;
    Ok(files::sync_parent(path)?)
}

/// `put-aside-NAME`, with a number when there is one of that name.
fn unused_name(path: &Path, host: &Host<'_>) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let first = host.backups.join(format!("put-aside-{name}"));
    let others = (2..).map(|number: u32| host.backups.join(format!("put-aside-{name}.{number}")));
    // The second iterator does not end, so there is one.
    std::iter::once(first).chain(others).find(|copy| fs::symlink_metadata(copy).is_err()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::super::test_host::{chosen, host};
    use super::super::{Conflict, Version};
    use super::*;

    #[test]
    fn what_moves_to_another_file_system_is_there_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join("path"), dir.path().join("backups/put-aside-path"));
        fs::create_dir_all(path.join("deep")).unwrap();
        fs::write(path.join("deep/file"), "theirs").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o710)).unwrap();
        // Of a kill in the middle of the copy.
        fs::create_dir_all(copy.with_file_name("half-put-aside/other")).unwrap();
        move_across(&path, &copy).unwrap();
        assert!(!path.exists());
        assert_eq!(fs::read_dir(copy.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
        assert_eq!(fs::read_dir(&copy).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(copy.join("deep/file")).unwrap(), "theirs");
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o710);
    }

    #[test]
    fn what_stays_has_nothing_of_a_killed_attempt_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(host(dir.path()).backups).unwrap();
        let path = dir.path().join("unit");
        fs::write(&path, "theirs").unwrap();
        let beside = dir.path().join(".unit.nix-unroot-new");
        fs::write(&beside, "").unwrap();
        let conflict = Conflict {
            path: path.clone(),
            reason: String::new(),
            before: Version::of("nothing"),
            ours: Version::of("nothing"),
            now: Version::of("theirs"),
            digest: Present::at(&path).unwrap().digest(),
        };
        let host = chosen(dir.path(), &conflict, Keep::Theirs);
        undo_placed(&path, &FileState::Absent, &Wrote::Nothing, &host).unwrap();
        assert!(path.exists() && !beside.exists());
    }
}
