//! A marked block at the end of a text file that belongs to somebody else.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::edit::{Original, read_or_empty};
use super::{Act, Host, show};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppendBlock {
    /// The file; a missing one is made.
    pub path: PathBuf,
    /// The block's first line; the line that ends it is derived from it.
    pub marker: String,
    /// The lines between.
    pub text: String,
}

impl AppendBlock {
    fn end_marker(&self) -> String {
        format!("{} (end)", self.marker)
    }

    fn block(&self) -> String {
        let newline = if self.text.ends_with('\n') { "" } else { "\n" };
        format!("{}\n{}{newline}{}\n", self.marker, self.text, self.end_marker())
    }

    /// `text` without every block of ours, whatever was done to the lines inside. Of a block whose end is gone only the lines
    /// that we wrote go: what follows is somebody else's.
    fn without(&self, text: &str) -> String {
        let end = self.end_marker();
        let mut kept = String::with_capacity(text.len());
        let mut lines = text.split_inclusive('\n');
        while let Some(line) = lines.next() {
            if line.trim_end() != self.marker {
                kept.push_str(line);
            } else if lines.clone().any(|line| line.trim_end() == end) {
                lines.by_ref().take_while(|line| line.trim_end() != end).for_each(drop);
            } else {
                let foreign =
                    lines.by_ref().filter(|line| !self.text.lines().any(|ours| ours == line.trim_end()));
                foreign.for_each(|line| kept.push_str(line));
            }
        }
        kept
    }
}

impl Act for AppendBlock {
    type Before = Original;

    fn changes(&self) -> String {
        format!("appends a marked block of {} lines to {}", self.text.lines().count(), show(&self.path))
    }

    fn undone_by(&self) -> String {
        "removes the block; edits that others made elsewhere in the file stay".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(read_or_empty(&self.path)?.ends_with(&self.block()))
    }

    fn capture(&self, host: &Host<'_>) -> Result<Original> {
        Original::capture(&self.path, host)
    }

    fn apply(&self, _: &Host<'_>, before: &Original) -> Result<()> {
        let mut text = self.without(&before.read()?);
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&self.block());
        before.write(&text)
    }

    fn undo(&self, host: &Host<'_>, before: &Original) -> Result<()> {
        before.restore(&self.without(&before.read()?), host)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::test_host::host;
    use super::*;

    fn action(dir: &Path) -> AppendBlock {
        AppendBlock {
            path: dir.join("nix.conf"),
            marker: "# ours".to_owned(),
            text: "a = 1\nb = 2".to_owned(),
        }
    }

    #[test]
    fn goes_and_comes_back_to_the_byte() {
        for held in [None, Some(""), Some("x = 1\n"), Some("x = 1"), Some("\n\n# theirs\n")] {
            let dir = tempfile::tempdir().unwrap();
            let (host, action) = (host(dir.path()), action(dir.path()));
            if let Some(text) = held {
                fs::write(&action.path, text).unwrap();
            }
            let before = action.capture(&host).unwrap();
            for _ in 0..2 {
                action.apply(&host, &before).unwrap();
            }
            let text = fs::read_to_string(&action.path).unwrap();
            assert!(text.ends_with("# ours\na = 1\nb = 2\n# ours (end)\n"), "{text:?}");
            assert_eq!(text.matches("a = 1").count(), 1);
            assert!(action.is_done(&host).unwrap());
            action.undo(&host, &before).unwrap();
            assert_eq!(action.capture(&host).unwrap(), before, "{held:?}");
        }
    }

    #[test]
    fn edits_outside_the_block_survive_the_undo() {
        let dir = tempfile::tempdir().unwrap();
        let (host, action) = (host(dir.path()), action(dir.path()));
        fs::write(&action.path, "x = 1\n").unwrap();
        let before = action.capture(&host).unwrap();
        action.apply(&host, &before).unwrap();
        let edited =
            fs::read_to_string(&action.path).unwrap().replace("x = 1", "x = 9").replace("b = 2", "b = 3");
        fs::write(&action.path, format!("{edited}y = 2\n")).unwrap();
        action.undo(&host, &before).unwrap();
        assert_eq!(fs::read_to_string(&action.path).unwrap(), "x = 9\ny = 2\n");
    }

    #[test]
    fn a_block_without_its_end_takes_nothing_else_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let (host, action) = (host(dir.path()), action(dir.path()));
        fs::write(&action.path, "x = 1\n").unwrap();
        let before = action.capture(&host).unwrap();
        action.apply(&host, &before).unwrap();
        let edited = fs::read_to_string(&action.path).unwrap().replace("# ours (end)\n", "y = 2\n");
        fs::write(&action.path, edited).unwrap();
        action.undo(&host, &before).unwrap();
        assert_eq!(fs::read_to_string(&action.path).unwrap(), "x = 1\ny = 2\n");
    }
}
