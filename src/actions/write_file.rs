//! A file with a given text: units, tmpfiles.d entries.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conflict::{Scan, Wrote, ensure_untouched, undo_owned};
use super::create_directory::octal;
use super::drift::{self, Aspect, Drift};
use super::file_state::FileState;
use super::{Act, Host, show};
use crate::system::files::{self, Ownership};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
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
    fn wrote(&self) -> Wrote {
        Wrote::Text(self.text.clone())
    }

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

    fn apply(&self, host: &Host<'_>, before: &FileState) -> Result<()> {
        ensure_untouched(&self.path, before, &self.wrote(), host)?;
        files::replace(&self.path, self.text.as_bytes(), Ownership::root(octal(&self.mode)?))
            .with_context(|| format!("cannot write {}", show(&self.path)))
    }

    fn undo(&self, host: &Host<'_>, before: &FileState) -> Result<()> {
        undo_owned(&self.path, before, &self.wrote(), Ownership::root(octal(&self.mode)?), host)
    }

    fn look_for_conflicts(&self, scan: &mut Scan<'_>, before: &FileState) -> Result<()> {
        scan.placed(&self.path, before, self.wrote())
    }

    fn look_for_drift(&self, host: &Host<'_>, before: Option<&FileState>) -> Result<Vec<Drift>> {
        if let Some(drift) = drift::of_placed(&self.path, before, &self.wrote(), host)? {
            return Ok(vec![drift]);
        }
        drift::of_owner(&self.path, Ownership::root(octal(&self.mode)?))
    }

    fn decides(&self, path: &Path, aspect: Aspect) -> bool {
        path == self.path && aspect != Aspect::Runs
    }
}

#[cfg(test)]
mod tests {
    use super::super::conflict::{Keep, Present};
    use super::super::test_host::{chosen, conflicts, host};
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

    /// What somebody may have made of our file, and whether that is a conflict.
    #[test]
    fn what_others_made_of_it_is_never_lost() {
        type Made = fn(&std::path::Path);
        let rows: [(&str, bool, Made); 7] = [
            ("nothing", false, |_| {}),
            ("deleted", false, |path| fs::remove_file(path).unwrap()),
            ("put back", false, |path| fs::write(path, "theirs\n").unwrap()),
            ("edited", true, |path| fs::write(path, "ours\nmore\n").unwrap()),
            ("not text", true, |path| fs::write(path, b"\xff\x00").unwrap()),
            ("a link", true, |path| {
                fs::remove_file(path).unwrap();
                std::os::unix::fs::symlink("/dev/null", path).unwrap();
            }),
            ("a directory", true, |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
                fs::write(path.join("inside"), "kept").unwrap();
            }),
        ];
        for (name, is_conflict, made) in rows {
            for keep in [Keep::Theirs, Keep::Ours] {
                let dir = tempfile::tempdir().unwrap();
                let host = host(dir.path());
                fs::create_dir(&host.backups).unwrap();
                let path = dir.path().join("unit");
                fs::write(&path, "theirs\n").unwrap();
                let action =
                    WriteFile { path: path.clone(), mode: "0644".to_owned(), text: "ours\n".to_owned() };
                let before = action.capture(&host).unwrap();
                action.apply(&host, &before).unwrap();
                made(&path);
                let now = Present::at(&path).unwrap();
                let found = conflicts(dir.path(), &action, &before);
                assert_eq!(found.len(), usize::from(is_conflict), "{name}");
                let Some(conflict) = found.first() else {
                    action.undo(&host, &before).unwrap();
                    assert_eq!(FileState::capture(&path, &host).unwrap(), before, "{name}");
                    continue;
                };
                assert!(action.undo(&host, &before).is_err(), "{name}: nobody was asked");
                assert!(action.apply(&host, &before).is_err(), "{name}: a resumed run does not overwrite it");
                assert_eq!(Present::at(&path).unwrap(), now, "{name}");
                let host = chosen(dir.path(), conflict, keep);
                action.undo(&host, &before).unwrap();
                if keep == Keep::Theirs {
                    assert_eq!(Present::at(&path).unwrap(), now, "{name}");
                } else {
                    assert_eq!(FileState::capture(&path, &host).unwrap(), before, "{name}");
                    assert_eq!(Present::at(&host.backups.join("put-aside-unit")).unwrap(), now, "{name}");
                }
            }
        }
    }
}
