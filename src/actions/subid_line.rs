//! A range in `/etc/subuid` or `/etc/subgid`.

use std::path::PathBuf;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conflict::Scan;
use super::drift::{Aspect, Drift, Repair};
use super::edit::{AccountLock, Original, read_or_empty, without_added};
use super::{Act, Host, show};
use crate::types::{SubidRange, parse_subid_file};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubidLine {
    /// `/etc/subuid` or `/etc/subgid`.
    pub path: PathBuf,
    /// Whose range it is.
    pub user: String,
    /// The first id.
    pub start: u32,
    /// How many.
    pub count: u32,
}

impl SubidLine {
    fn line(&self) -> String {
        format!("{}:{}:{}\n", self.user, self.start, self.count)
    }

    /// `text` without our line.
    fn without(&self, text: &str, held: &str) -> String {
        let line = self.line();
        without_added(text, held, |other| other.trim_end() == line.trim_end())
    }
}

impl Act for SubidLine {
    type Before = Original;

    fn changes(&self) -> String {
        format!("adds {} to {}", self.line().trim_end(), show(&self.path))
    }

    fn undone_by(&self) -> String {
        "removes that line".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        let range = SubidRange { start: self.start, count: self.count };
        Ok(parse_subid_file(&read_or_empty(&self.path)?)
            .iter()
            .any(|entry| entry.owner == self.user && entry.range == range))
    }

    fn capture(&self, host: &Host<'_>) -> Result<Original> {
        Original::capture(&self.path, host)
    }

    fn apply(&self, host: &Host<'_>, before: &Original) -> Result<()> {
        let _lock = AccountLock::take()?;
        if self.is_done(host)? {
            return Ok(());
        }
        let mut text = before.read()?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&self.line());
        before.write(&text)
    }

    fn undo(&self, host: &Host<'_>, before: &Original) -> Result<()> {
        let _lock = AccountLock::take()?;
        let without = |text: &str| Ok(self.without(text, &before.held(host)?));
        if let Some(file) = before.to_undo(host)? {
            file.restore(&without(&file.read()?)?, host)?;
        }
        before.follow(host, without)
    }

    fn look_for_conflicts(&self, scan: &mut Scan<'_>, before: &Original) -> Result<()> {
        before.look_for_conflicts(scan).map(drop)
    }

    fn look_for_drift(&self, host: &Host<'_>, _: Option<&Original>) -> Result<Vec<Drift>> {
        let found = || format!("the line {} is gone", self.line().trim_end());
        let drift = || Drift::new(&self.path, Aspect::Content, found(), Repair::Again);
        Ok((!self.is_done(host)?).then(drift).into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::test_host::host;
    use super::*;

    fn line(dir: &Path) -> SubidLine {
        SubidLine { path: dir.join("subuid"), user: "nix".to_owned(), start: 100, count: 10 }
    }

    #[test]
    fn goes_and_comes_back_to_the_byte() {
        for held in [None, Some(""), Some("alice:1:2\n"), Some("alice:1:2")] {
            let dir = tempfile::tempdir().unwrap();
            let (host, action) = (host(dir.path()), line(dir.path()));
            if let Some(text) = held {
                std::fs::write(&action.path, text).unwrap();
            }
            let before = action.capture(&host).unwrap();
            for _ in 0..2 {
                action.apply(&host, &before).unwrap();
            }
            assert!(action.is_done(&host).unwrap());
            assert!(read_or_empty(&action.path).unwrap().ends_with("nix:100:10\n"));
            for _ in 0..2 {
                action.undo(&host, &before).unwrap();
            }
            assert_eq!(action.capture(&host).unwrap(), before, "{held:?}");
            let _ = std::fs::remove_file(&action.path);
            action.undo(&host, &before).unwrap();
            assert_eq!(action.capture(&host).unwrap(), before, "deleted: {held:?}");
        }
    }

    #[test]
    fn the_same_line_of_somebody_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (host, action) = (host(dir.path()), line(dir.path()));
        std::fs::write(&action.path, "nix:100:10 \nalice:1:2\n").unwrap();
        let before = action.capture(&host).unwrap();
        std::fs::write(&action.path, "nix:100:10 \nalice:1:2\nbob:3:4\nnix:100:10\n").unwrap();
        for _ in 0..2 {
            action.undo(&host, &before).unwrap();
            let left = read_or_empty(&action.path).unwrap();
            assert_eq!(left, "nix:100:10 \nalice:1:2\nbob:3:4\n");
        }
    }

    #[test]
    fn somebody_elses_line_survives_the_undo() {
        let dir = tempfile::tempdir().unwrap();
        let (host, action) = (host(dir.path()), line(dir.path()));
        std::fs::write(&action.path, "alice:1:2\n").unwrap();
        let before = action.capture(&host).unwrap();
        action.apply(&host, &before).unwrap();
        let edited = format!("{}bob:3:4\n", read_or_empty(&action.path).unwrap());
        std::fs::write(&action.path, edited).unwrap();
        action.undo(&host, &before).unwrap();
        assert_eq!(read_or_empty(&action.path).unwrap(), "alice:1:2\nbob:3:4\n");
    }
}
