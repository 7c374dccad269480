//! Lines of a text file that belongs to somebody else.

use std::path::PathBuf;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conflict::Scan;
use super::drift::{Aspect, Drift, Repair};
use super::edit::{Original, read_or_empty};
use super::{Act, Host, show};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaceLines {
    /// The file.
    pub path: PathBuf,
    /// What becomes of which lines.
    pub lines: Vec<Line>,
}

/// A line, wherever it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// As it is, without its end.
    pub old: String,
    /// As it will be.
    pub new: String,
}

impl ReplaceLines {
    fn swapped(&self, text: &str, back: bool) -> String {
        let swap = |line: &str| {
            let body = line.trim_end_matches(['\n', '\r']);
            let found = self.lines.iter().find(|pair| body == if back { &pair.new } else { &pair.old });
            let to = found.map(|pair| if back { &pair.old } else { &pair.new });
            to.map_or_else(|| line.to_owned(), |to| format!("{to}{}", &line[body.len()..]))
        };
        text.split_inclusive('\n').map(swap).collect()
    }
}

impl Act for ReplaceLines {
    type Before = Original;

    fn changes(&self) -> String {
        let lines =
            self.lines.iter().map(|line| format!("{:?} becomes {:?}", line.old.trim(), line.new.trim()));
        format!("in {}: {}", show(&self.path), lines.collect::<Vec<_>>().join(", "))
    }

    fn undone_by(&self) -> String {
        "gives the lines back; edits that others made elsewhere in the file stay".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        let text = read_or_empty(&self.path)?;
        Ok(self.swapped(&text, false) == text)
    }

    fn capture(&self, host: &Host<'_>) -> Result<Original> {
        Original::capture(&self.path, host)
    }

    fn apply(&self, _: &Host<'_>, before: &Original) -> Result<()> {
        before.write(&self.swapped(&before.read()?, false))
    }

    fn undo(&self, host: &Host<'_>, before: &Original) -> Result<()> {
        if let Some(file) = before.to_undo(host)? {
            let text = file.read()?;
            if file.path() == before.path() && text == self.swapped(&before.held(host)?, false) {
                before.put_back(host)?;
            } else {
                file.restore(&self.swapped(&text, true), host)?;
            }
        }
        before.follow(host, |text| Ok(self.swapped(text, true)))
    }

    fn look_for_conflicts(&self, scan: &mut Scan<'_>, before: &Original) -> Result<()> {
        before.look_for_conflicts(scan).map(drop)
    }

    fn look_for_drift(&self, host: &Host<'_>, _: Option<&Original>) -> Result<Vec<Drift>> {
        let drift =
            || Drift::new(&self.path, Aspect::Content, "lines are as they were before", Repair::Again);
        Ok((!self.is_done(host)?).then(drift).into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_host::host;
    use super::*;
    use std::fs;

    #[test]
    fn lines_go_and_come_back_to_the_byte_and_edits_stay() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let path = dir.path().join("bash.bashrc");
        let line = Line { old: "  . /nix/x".to_owned(), new: "  guard; . /nix/x".to_owned() };
        let action = ReplaceLines { path: path.clone(), lines: vec![line] };
        for text in ["a\n  . /nix/x\r\nb\n  . /nix/x", "  . /nix/x\n", ". /nix/x"] {
            fs::write(&path, text).unwrap();
            let before = action.capture(&host).unwrap();
            for _ in 0..2 {
                action.apply(&host, &before).unwrap();
            }
            assert!(action.is_done(&host).unwrap());
            assert!(!fs::read_to_string(&path).unwrap().contains("\n  . "), "{text}");
            action.undo(&host, &before).unwrap();
            assert_eq!(action.capture(&host).unwrap(), before, "{text}");
        }
        // One of them was so before: undoing it twice leaves that one.
        fs::write(&path, "  guard; . /nix/x\n  . /nix/x\n").unwrap();
        let before = action.capture(&host).unwrap();
        action.apply(&host, &before).unwrap();
        for _ in 0..2 {
            action.undo(&host, &before).unwrap();
            assert_eq!(action.capture(&host).unwrap(), before);
        }
        fs::write(&path, "  . /nix/x\n").unwrap();
        let before = action.capture(&host).unwrap();
        action.apply(&host, &before).unwrap();
        fs::write(&path, fs::read_to_string(&path).unwrap() + "theirs\n").unwrap();
        action.undo(&host, &before).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "  . /nix/x\ntheirs\n");
    }
}
