//! The block that an installer of Nix put into a shell's file gives way to one of ours; an installer's copy of the file stays.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conflict::{Scan, Wrote, ensure_untouched, undo_placed};
use super::file_state::FileState;
use super::{Act, Host, show};
use crate::platform::block::{has_block, without_blocks};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaceBlock {
    /// The file with the block.
    pub path: PathBuf,
    /// The first line of ours; the line that ends it is derived from it.
    pub marker: String,
    /// The lines between.
    pub text: String,
}

impl ReplaceBlock {
    /// What becomes of the file. One that is a link, or holds something else than text, is somebody else's and stays.
    fn outcome(&self, host: &Host<'_>, before: &FileState) -> Result<Option<String>> {
        let FileState::File { .. } = before else { return Ok(None) };
        let bytes = before.read(host)?;
        let Some(text) = std::str::from_utf8(&bytes).ok().filter(|text| has_block(text)) else {
            return Ok(None);
        };
        let rest = without_blocks(text);
        let end = if rest.is_empty() || rest.ends_with('\n') { "" } else { "\n" };
        Ok(Some(format!("{rest}{end}{}\n{}{} (end)\n", self.marker, self.text, self.marker)))
    }
}

impl Act for ReplaceBlock {
    type Before = FileState;

    fn changes(&self) -> String {
        format!(
            "replaces the installer's block in {} by one of {} lines",
            show(&self.path),
            self.text.lines().count()
        )
    }

    fn undone_by(&self) -> String {
        "puts the file back as it was".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(!fs::read(&self.path).is_ok_and(|bytes| has_block(&String::from_utf8_lossy(&bytes))))
    }

    fn capture(&self, host: &Host<'_>) -> Result<FileState> {
        FileState::capture(&self.path, host)
    }

    fn apply(&self, host: &Host<'_>, before: &FileState) -> Result<()> {
        match self.outcome(host, before)? {
            None => {
                host.observer
                    .note(&format!("{} is no plain text file, and stays as it is", show(&self.path)));
                Ok(())
            }
            Some(text) => {
                ensure_untouched(&self.path, before, &Wrote::Text(text.clone()), host)?;
                before.write_instead(&self.path, &text)
            }
        }
    }

    fn undo(&self, host: &Host<'_>, before: &FileState) -> Result<()> {
        match self.outcome(host, before)? {
            None => Ok(()),
            Some(text) => undo_placed(&self.path, before, &Wrote::Text(text), host),
        }
    }

    fn look_for_conflicts(&self, scan: &mut Scan<'_>, before: &FileState) -> Result<()> {
        match self.outcome(scan.host, before)? {
            None => Ok(()),
            Some(text) => scan.placed(&self.path, before, Wrote::Text(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_host::{conflicts, host};
    use super::*;

    #[test]
    fn a_block_is_replaced_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let path = dir.path().join("zshrc");
        let action = ReplaceBlock { path: path.clone(), marker: "# ours".to_owned(), text: "x\n".to_owned() };
        let theirs = "# of Apple\n\n# Nix\n. /nix/x\n# End Nix\n\nalias a=b";
        fs::write(&path, theirs).unwrap();
        let before = action.capture(&host).unwrap();
        for _ in 0..2 {
            action.apply(&host, &before).unwrap();
            let expected = "# of Apple\nalias a=b\n# ours\nx\n# ours (end)\n";
            assert_eq!(fs::read_to_string(&path).unwrap(), expected);
            assert!(action.is_done(&host).unwrap() && conflicts(dir.path(), &action, &before).is_empty());
        }
        for _ in 0..2 {
            action.undo(&host, &before).unwrap();
            assert_eq!(action.capture(&host).unwrap(), before);
        }
        action.apply(&host, &before).unwrap();
        fs::write(&path, "somebody else's\n").unwrap();
        assert_eq!(conflicts(dir.path(), &action, &before).len(), 1);
        assert!(action.undo(&host, &before).is_err() && action.apply(&host, &before).is_err());
    }

    #[test]
    fn a_link_stays() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let (path, target) = (dir.path().join("zshrc"), dir.path().join("target"));
        fs::write(&target, "# Nix\n# End Nix\n").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let action = ReplaceBlock { path, marker: "# ours".to_owned(), text: String::new() };
        let before = action.capture(&host).unwrap();
        action.apply(&host, &before).unwrap();
        action.undo(&host, &before).unwrap();
        assert_eq!(action.capture(&host).unwrap(), before);
        assert_eq!(fs::read_to_string(&target).unwrap(), "# Nix\n# End Nix\n");
    }
}
