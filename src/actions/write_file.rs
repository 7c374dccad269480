//! A file with a given text: units, tmpfiles.d entries.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::create_directory::octal;
use super::file_state::FileState;
use super::{Act, Host, show};
use crate::system::files::{self, Ownership};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteFile {
    /// Where it lies; root owns it.
    pub path: PathBuf,
    /// Permission bits in octal.
    pub mode: String,
    /// Its whole text.
    pub text: String,
}

impl WriteFile {
    fn is_ours(&self) -> Result<bool> {
        let mode = octal(&self.mode)?;
        let kept = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| metadata.is_file() && Ownership::of(&metadata) == Ownership::root(mode));
        Ok(kept && fs::read(&self.path).is_ok_and(|bytes| bytes == self.text.as_bytes()))
    }
}

impl Act for WriteFile {
    type Before = FileState;

    fn changes(&self) -> String {
        format!("writes {} ({} lines, root:root {})", show(&self.path), self.text.lines().count(), self.mode)
    }

    fn undone_by(&self) -> String {
        "puts back what was there, or removes it".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        self.is_ours()
    }

    fn capture(&self, host: &Host<'_>) -> Result<FileState> {
        FileState::capture(&self.path, host)
    }

    fn apply(&self, _: &Host<'_>, _: &FileState) -> Result<()> {
        files::replace(&self.path, self.text.as_bytes(), Ownership::root(octal(&self.mode)?))
            .with_context(|| format!("cannot write {}", show(&self.path)))
    }

    fn undo(&self, host: &Host<'_>, before: &FileState) -> Result<()> {
        let now = FileState::capture(&self.path, host)?;
        if now != *before && now != FileState::Absent && !self.is_ours()? {
            let kept = keep_edited(&self.path, host)?;
            host.observer
                .note(&format!("{} was edited since; that version is kept as {kept}", show(&self.path)));
        }
        before.restore(&self.path, host)
    }
}

/// Keeps what somebody made of our file, beside the run's backups; returns where.
fn keep_edited(path: &std::path::Path, host: &Host<'_>) -> Result<String> {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let copy = host.backups.join(format!("edited-{name}"));
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", show(path)))?;
    files::replace(&copy, &bytes, Ownership::root(0o600))
        .with_context(|| format!("cannot keep {}", copy.display()))?;
    Ok(copy.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::super::test_host::host;
    use super::*;

    #[test]
    fn a_link_into_the_store_becomes_a_file_and_a_link_again() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let target = dir.path().join("target");
        fs::write(&target, "theirs\n").unwrap();
        let path = dir.path().join("unit");
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let action = WriteFile { path: path.clone(), mode: "0644".to_owned(), text: "ours\n".to_owned() };
        let before = action.capture(&host).unwrap();
        action.apply(&host, &before).unwrap();
        assert!(action.is_done(&host).unwrap());
        assert_eq!(fs::read_to_string(&target).unwrap(), "theirs\n", "the link's target is not written to");
        action.undo(&host, &before).unwrap();
        assert_eq!(FileState::capture(&path, &host).unwrap(), before);
    }

    #[test]
    fn an_edited_version_is_kept_aside() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        fs::create_dir(&host.backups).unwrap();
        let path = dir.path().join("unit");
        let action = WriteFile { path: path.clone(), mode: "0644".to_owned(), text: "ours\n".to_owned() };
        let before = action.capture(&host).unwrap();
        action.apply(&host, &before).unwrap();
        fs::write(&path, "edited\n").unwrap();
        action.undo(&host, &before).unwrap();
        assert!(!path.exists());
        assert_eq!(fs::read_to_string(host.backups.join("edited-unit")).unwrap(), "edited\n");
    }
}
