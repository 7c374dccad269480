//! The block that an installer of Nix put into a shell's file goes, and the installer's copy of the file with it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conflict::{Scan, Wrote, ensure_untouched, undo_placed};
use super::file_state::FileState;
use super::{Act, Host, show};
use crate::platform::block::{copy_of, has_block, without_blocks};
use crate::system::files;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveBlock {
    /// The file with the block.
    pub path: PathBuf,
}

/// The file and the installer's copy of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    file: FileState,
    copy: FileState,
}

impl Act for RemoveBlock {
    type Before = Before;

    fn changes(&self) -> String {
        format!("removes the installer's block from {}, and its copy of that file", show(&self.path))
    }

    fn undone_by(&self) -> String {
        "puts both back".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        let has_block = fs::read(&self.path).is_ok_and(|bytes| has_block(&String::from_utf8_lossy(&bytes)));
        Ok(!has_block && fs::symlink_metadata(self.copy()).is_err())
    }

    fn capture(&self, host: &Host<'_>) -> Result<Before> {
        Ok(Before {
            file: FileState::capture(&self.path, host)?,
            copy: FileState::capture(&self.copy(), host)?,
        })
    }

    fn apply(&self, host: &Host<'_>, before: &Before) -> Result<()> {
        ensure_untouched(&self.copy(), &before.copy, &Wrote::Nothing, host)?;
        if let Some(wrote) = self.wrote(host, before)? {
            ensure_untouched(&self.path, &before.file, &wrote, host)?;
        }
        match self.outcome(host, before)? {
            Outcome::Untouched => {}
            Outcome::Gone => {
                files::remove(&self.path).with_context(|| format!("cannot remove {}", show(&self.path)))?;
            }
            Outcome::Text(text) => before.file.write_instead(&self.path, &text)?,
        }
        files::remove(&self.copy()).with_context(|| format!("cannot remove {}", show(&self.copy())))
    }

    fn undo(&self, host: &Host<'_>, before: &Before) -> Result<()> {
        undo_placed(&self.copy(), &before.copy, &Wrote::Nothing, host)?;
        match self.wrote(host, before)? {
            Some(wrote) => undo_placed(&self.path, &before.file, &wrote, host),
            None => Ok(()),
        }
    }

    fn look_for_conflicts(&self, scan: &mut Scan<'_>, before: &Before) -> Result<()> {
        let wrote = self.wrote(scan.host, before)?;
        scan.placed(&self.copy(), &before.copy, Wrote::Nothing)?;
        wrote.map_or(Ok(()), |wrote| scan.placed(&self.path, &before.file, wrote))
    }
}

/// What becomes of the file.
enum Outcome {
    /// It has no block, or is a link and so somebody else's.
    Untouched,
    /// Nothing was in it but the block.
    Gone,
    /// What was in it besides.
    Text(String),
}

impl RemoveBlock {
    fn copy(&self) -> PathBuf {
        copy_of(&self.path)
    }

    fn outcome(&self, host: &Host<'_>, before: &Before) -> Result<Outcome> {
        let FileState::File { .. } = &before.file else { return Ok(Outcome::Untouched) };
        let bytes = before.file.read(host)?;
        let Ok(text) = std::str::from_utf8(&bytes) else { return Ok(Outcome::Untouched) };
        if !has_block(text) {
            return Ok(Outcome::Untouched);
        }
        let rest = without_blocks(text);
        // A copy that is the file without the block tells the bytes exactly, blank lines included.
        let copy = before.copy.read(host)?;
        if let (FileState::File { .. }, Ok(copy)) = (&before.copy, std::str::from_utf8(&copy))
            && copy.trim() == rest.trim()
        {
            return Ok(Outcome::Text(copy.to_owned()));
        }
        Ok(if rest.trim().is_empty() { Outcome::Gone } else { Outcome::Text(rest) })
    }

    /// What this writes in the place of the file; none when it leaves it alone.
    fn wrote(&self, host: &Host<'_>, before: &Before) -> Result<Option<Wrote>> {
        Ok(match self.outcome(host, before)? {
            Outcome::Untouched => None,
            Outcome::Gone => Some(Wrote::Nothing),
            Outcome::Text(text) => Some(Wrote::Text(text)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_host::{conflicts, host};
    use super::*;

    const BLOCK: &str = "\n# Nix\nif [ -e '/nix/x' ]; then\n  . '/nix/x'\nfi\n# End Nix\n\n";

    #[test]
    fn a_block_goes_wherever_it_stands_and_comes_back() {
        // before the installer, after it, whether it kept a copy, after us
        let cases = [
            (Some("one\n"), format!("{BLOCK}one\n"), true, Some("one\n")),
            (Some("one\n"), format!("{BLOCK}one\n"), false, Some("one\n")),
            (Some("\n\none"), format!("{BLOCK}\n\none"), true, Some("\n\none")),
            (Some("one\n"), format!("one\n{BLOCK}"), false, Some("one\n")),
            (Some("one\n"), format!("one\n{BLOCK}two\n"), false, Some("one\ntwo\n")),
            (Some("one\n"), format!("{BLOCK}one\ntwo\n"), true, Some("one\ntwo\n")),
            (None, BLOCK.to_owned(), false, None),
            (Some("one\n"), "one\n".to_owned(), true, Some("one\n")),
            (Some("one\n"), "# Nix\nwithout an end\n".to_owned(), false, Some("# Nix\nwithout an end\n")),
        ];
        for (original, text, kept_copy, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            let host = host(dir.path());
            let action = RemoveBlock { path: dir.path().join("bashrc") };
            fs::write(&action.path, &text).unwrap();
            if kept_copy {
                fs::write(action.copy(), original.unwrap()).unwrap();
            }
            let before = action.capture(&host).unwrap();
            for _ in 0..2 {
                action.apply(&host, &before).unwrap();
                assert_eq!(fs::read_to_string(&action.path).ok().as_deref(), expected, "{text:?}");
                assert!(action.is_done(&host).unwrap(), "{text:?}");
            }
            for _ in 0..2 {
                action.undo(&host, &before).unwrap();
                assert_eq!(action.capture(&host).unwrap(), before, "{text:?}");
            }
        }
    }

    #[test]
    fn a_file_that_was_left_alone_is_nobodys_to_ask_about() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let action = RemoveBlock { path: dir.path().join("bashrc") };
        fs::write(action.copy(), "of an installer\n").unwrap();
        for held in [None, Some("one\n")] {
            held.map_or_else(
                || drop(fs::remove_file(&action.path)),
                |text| fs::write(&action.path, text).unwrap(),
            );
            let before = action.capture(&host).unwrap();
            action.apply(&host, &before).unwrap();
            fs::write(&action.path, "theirs\n").unwrap();
            assert!(conflicts(dir.path(), &action, &before).is_empty(), "{held:?}");
            action.undo(&host, &before).unwrap();
            assert_eq!(fs::read_to_string(&action.path).unwrap(), "theirs\n", "{held:?}");
            assert_eq!(fs::read_to_string(action.copy()).unwrap(), "of an installer\n");
        }
    }

    #[test]
    fn a_resumed_run_does_not_write_over_what_somebody_edited() {
        for edited in ["bashrc", "copy"] {
            let dir = tempfile::tempdir().unwrap();
            let host = host(dir.path());
            let action = RemoveBlock { path: dir.path().join("bashrc") };
            fs::write(&action.path, format!("{BLOCK}one\n")).unwrap();
            fs::write(action.copy(), "one\n").unwrap();
            let before = action.capture(&host).unwrap();
            let path = if edited == "copy" { action.copy() } else { action.path.clone() };
            fs::write(&path, "theirs\n").unwrap();
            let now = action.capture(&host).unwrap();
            assert!(action.apply(&host, &before).is_err(), "{edited}");
            assert_eq!(action.capture(&host).unwrap(), now, "{edited}");
        }
    }
}
