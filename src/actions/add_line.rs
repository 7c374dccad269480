//! A line in somebody else's file.

use std::path::PathBuf;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conflict::Scan;
use super::create_volume;
use super::drift::{Aspect, Drift, Repair};
use super::edit::{Original, read_or_empty, without_added};
use super::{Act, Host, show};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddLine {
    /// The file; a missing one is made.
    pub path: PathBuf,
    /// The line, without its end.
    pub line: String,
    /// The volume whose UUID stands in the line, as `@VOLUME_UUID@`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
}

/// What was there, and what comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Was {
    original: Original,
    line: String,
}

impl AddLine {
    fn filled(&self, host: &Host<'_>) -> Result<String> {
        let volume = self.volume.as_ref();
        volume.map_or(Ok(self.line.clone()), |volume| create_volume::fill(&self.line, host, volume))
    }
}

/// `text` without the line that we added.
fn without(text: &str, held: &str, line: &str) -> String {
    without_added(text, held, |other| other.trim_end_matches('\n') == line)
}

fn has(text: &str, line: &str) -> bool {
    text.lines().any(|other| other == line)
}

impl Act for AddLine {
    type Before = Was;

    fn changes(&self) -> String {
        format!("adds the line {:?} to {}", self.line, show(&self.path))
    }

    fn undone_by(&self) -> String {
        "removes that line".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        // A volume that this run makes has no line yet.
        Ok(self.volume.is_none() && has(&read_or_empty(&self.path)?, &self.line))
    }

    fn capture(&self, host: &Host<'_>) -> Result<Was> {
        Ok(Was { original: Original::capture(&self.path, host)?, line: self.filled(host)? })
    }

    fn apply(&self, _: &Host<'_>, was: &Was) -> Result<()> {
        let mut text = was.original.read()?;
        if has(&text, &was.line) {
            return Ok(());
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&was.line);
        text.push('\n');
        was.original.write(&text)
    }

    fn undo(&self, host: &Host<'_>, was: &Was) -> Result<()> {
        let without = |text: &str| Ok(without(text, &was.original.held(host)?, &was.line));
        if let Some(file) = was.original.to_undo(host)? {
            file.restore(&without(&file.read()?)?, host)?;
        }
        was.original.follow(host, without)
    }

    fn look_for_conflicts(&self, scan: &mut Scan<'_>, was: &Was) -> Result<()> {
        was.original.look_for_conflicts(scan).map(drop)
    }

    fn look_for_drift(&self, _: &Host<'_>, was: Option<&Was>) -> Result<Vec<Drift>> {
        let Some(was) = was else { return Ok(Vec::new()) };
        let found = || format!("the line {:?} is gone", was.line);
        let drift = || Drift::new(&self.path, Aspect::Content, found(), Repair::Again);
        Ok((!has(&read_or_empty(&self.path)?, &was.line)).then(drift).into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_host::host;
    use super::*;

    #[test]
    fn goes_and_comes_back_to_the_byte() {
        for held in [None, Some(""), Some("# of Apple\n"), Some("run\tprivate/run")] {
            let dir = tempfile::tempdir().unwrap();
            let host = host(dir.path());
            let action =
                AddLine { path: dir.path().join("synthetic.conf"), line: "nix".to_owned(), volume: None };
            if let Some(text) = held {
                std::fs::write(&action.path, text).unwrap();
            }
            let before = action.capture(&host).unwrap();
            for _ in 0..2 {
                action.apply(&host, &before).unwrap();
            }
            assert!(action.is_done(&host).unwrap());
            assert!(read_or_empty(&action.path).unwrap().ends_with("nix\n"));
            assert!(action.look_for_drift(&host, Some(&before)).unwrap().is_empty());
            for _ in 0..2 {
                action.undo(&host, &before).unwrap();
            }
            assert_eq!(action.capture(&host).unwrap(), before, "{held:?}");
            assert_eq!(action.look_for_drift(&host, Some(&before)).unwrap().len(), 1);
        }
    }

    /// It was there before, and somebody copied it since: of equal lines as many stay as there were.
    #[test]
    fn the_same_line_of_somebody_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let action = AddLine { path: dir.path().join("fstab"), line: "nix".to_owned(), volume: None };
        std::fs::write(&action.path, "a\nnix\n").unwrap();
        let before = action.capture(&host).unwrap();
        action.apply(&host, &before).unwrap();
        std::fs::write(&action.path, "a\nnix\nb\nnix\n").unwrap();
        for _ in 0..2 {
            action.undo(&host, &before).unwrap();
            assert_eq!(read_or_empty(&action.path).unwrap(), "a\nnix\nb\n");
        }
    }

    #[test]
    fn somebody_elses_line_survives_the_undo() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let action = AddLine { path: dir.path().join("fstab"), line: "nix".to_owned(), volume: None };
        std::fs::write(&action.path, "a\n").unwrap();
        let before = action.capture(&host).unwrap();
        action.apply(&host, &before).unwrap();
        std::fs::write(&action.path, "a\nnix\nb\n").unwrap();
        action.undo(&host, &before).unwrap();
        assert_eq!(read_or_empty(&action.path).unwrap(), "a\nb\n");
    }
}
