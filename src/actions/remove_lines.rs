//! Lines of somebody else's file go; the file, too, when nothing else is in it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conflict::{Scan, Wrote, ensure_untouched, undo_placed};
use super::edit::read_or_empty;
use super::file_state::FileState;
use super::{Act, Host, show};
use crate::system::files;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveLines {
    /// The file.
    pub path: PathBuf,
    /// The lines, each without its end.
    pub lines: Vec<String>,
}

impl Act for RemoveLines {
    type Before = FileState;

    fn changes(&self) -> String {
        let lines: Vec<_> = self.lines.iter().map(|line| format!("{line:?}")).collect();
        format!("in {}: removes {}", show(&self.path), lines.join(", "))
    }

    fn undone_by(&self) -> String {
        "puts the file back as it was".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        let text = read_or_empty(&self.path)?;
        Ok(self.without(&text) == text)
    }

    fn capture(&self, host: &Host<'_>) -> Result<FileState> {
        FileState::capture(&self.path, host)
    }

    fn apply(&self, host: &Host<'_>, before: &FileState) -> Result<()> {
        let wrote = self.wrote(host, before)?;
        ensure_untouched(&self.path, before, &wrote, host)?;
        match wrote {
            Wrote::Text(text) => before.write_instead(&self.path, &text),
            _ => files::remove(&self.path).with_context(|| format!("cannot remove {}", show(&self.path))),
        }
    }

    fn undo(&self, host: &Host<'_>, before: &FileState) -> Result<()> {
        undo_placed(&self.path, before, &self.wrote(host, before)?, host)
    }

    fn look_for_conflicts(&self, scan: &mut Scan<'_>, before: &FileState) -> Result<()> {
        let wrote = self.wrote(scan.host, before)?;
        scan.placed(&self.path, before, wrote)
    }
}

impl RemoveLines {
    fn without(&self, text: &str) -> String {
        let ours = |line: &&str| self.lines.iter().any(|ours| ours == line.trim_end_matches(['\n', '\r']));
        text.split_inclusive('\n').filter(|line| !ours(line)).collect()
    }

    fn wrote(&self, host: &Host<'_>, before: &FileState) -> Result<Wrote> {
        let bytes = before.read(host)?;
        let rest = self.without(&String::from_utf8_lossy(&bytes));
        Ok(if rest.trim().is_empty() { Wrote::Nothing } else { Wrote::Text(rest) })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::test_host::{conflicts, host};
    use super::*;

    #[test]
    fn lines_go_and_come_back() {
        for (text, rest) in [
            ("nix\n", None),
            ("run\tprivate/run\nnix\n", Some("run\tprivate/run\n")),
            ("# nix\nnix\nnixos\n", Some("# nix\nnixos\n")),
            ("a\nnix", Some("a\n")),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let host = host(dir.path());
            let action =
                RemoveLines { path: dir.path().join("synthetic.conf"), lines: vec!["nix".to_owned()] };
            assert!(action.is_done(&host).unwrap(), "there is no file");
            fs::write(&action.path, text).unwrap();
            let before = action.capture(&host).unwrap();
            for _ in 0..2 {
                action.apply(&host, &before).unwrap();
                assert_eq!(fs::read_to_string(&action.path).ok().as_deref(), rest, "{text:?}");
                assert!(action.is_done(&host).unwrap());
            }
            for _ in 0..2 {
                action.undo(&host, &before).unwrap();
                assert_eq!(action.capture(&host).unwrap(), before, "{text:?}");
            }
            fs::write(&action.path, "somebody else\n").unwrap();
            assert_eq!(conflicts(dir.path(), &action, &before).len(), 1);
            assert!(action.undo(&host, &before).is_err() && action.apply(&host, &before).is_err());
            assert_eq!(fs::read_to_string(&action.path).unwrap(), "somebody else\n");
        }
    }
}
