//! A marked block at the end of a text file that belongs to somebody else.

use std::path::PathBuf;

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conflict::{Keep, Present, Scan, Version, put_aside, undecided};
use super::drift::{Aspect, Drift, Repair};
use super::edit::{Original, read_or_empty};
use super::{Act, Action, Host, show};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppendBlock {
    /// The file; a missing one is made.
    pub path: PathBuf,
    /// The block's first line; the line that ends it is derived from it.
    pub marker: String,
    /// The lines between.
    pub text: String,
    /// Whether what somebody wrote into an older block of ours goes with it, instead of staying in its place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaces: bool,
}

impl AppendBlock {
    fn end_marker(&self) -> String {
        format!("{} (end)", self.marker)
    }

    fn block(&self) -> String {
        let newline = if self.text.ends_with('\n') { "" } else { "\n" };
        format!("{}\n{}{newline}{}\n", self.marker, self.text, self.end_marker())
    }

    /// `text` with one block of ours, at its end.
    fn with_block(&self, text: &str) -> String {
        let mut text = if self.replaces { self.cut(text) } else { self.without(text).text };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&self.block());
        text
    }

    /// Whether our block stands in `text` as it was written. Somebody may have added lines behind it.
    fn is_whole(&self, text: &str) -> bool {
        text.match_indices(&self.block()).any(|(at, _)| at == 0 || text.as_bytes()[at - 1] == b'\n')
    }

    /// The blocks of ours in `text`, whatever was done to them.
    fn blocks(&self, text: &str) -> String {
        let rest = self.cut(text);
        let mut others = rest.split_inclusive('\n').peekable();
        text.split_inclusive('\n').filter(|line| others.next_if_eq(line).is_none()).collect()
    }

    /// That as what a choice is made for.
    fn present_blocks(&self, text: &str) -> Present {
        Present::File(self.blocks(text).into_bytes())
    }

    /// What `text` is without every block of ours. Lines that somebody else put into one stay in its place; of a block
    /// whose end is gone only the lines that we wrote go: what follows is somebody else's anyway.
    fn without(&self, text: &str) -> Rest {
        let end = self.end_marker();
        let mut rest = Rest { text: String::with_capacity(text.len()), inside: false };
        // The lines of ours that are still to come in the block that is being read; none outside of one.
        let mut ours: Option<(Vec<&str>, bool)> = None;
        let mut lines = text.split_inclusive('\n');
        while let Some(line) = lines.next() {
            let words = line.trim_end();
            if words == self.marker {
                let closed = lines.clone().any(|line| line.trim_end() == end);
                ours = Some((self.text.lines().map(str::trim_end).collect(), closed));
                continue;
            }
            match &mut ours {
                Some((_, true)) if words == end => ours = None,
                Some((block, closed)) => match block.iter().position(|other| *other == words) {
                    // Each line of ours goes once.
                    Some(at) => drop(block.remove(at)),
                    None => {
                        rest.inside |= *closed && !words.is_empty();
                        rest.text.push_str(line);
                    }
                },
                None => rest.text.push_str(line),
            }
        }
        rest
    }

    /// `text` without every block of ours and all that is in it.
    fn cut(&self, text: &str) -> String {
        let end = self.end_marker();
        let mut inside = false;
        let keeps = |line: &&str| match (inside, line.trim_end()) {
            (false, words) if words == self.marker => {
                inside = true;
                false
            }
            (true, words) if words == end => {
                inside = false;
                false
            }
            _ => !inside,
        };
        text.split_inclusive('\n').filter(keeps).collect()
    }

    /// Takes the block out of the file that was edited.
    fn take_out(&self, host: &Host<'_>, before: &Original) -> Result<()> {
        let Some(file) = before.to_undo(host)? else { return Ok(()) };
        let text = file.read()?;
        // Also of a file that had an older block of ours, or what somebody had made of it.
        if file.path() == before.path() && text == self.with_block(&before.held(host)?) {
            return before.put_back(host);
        }
        let rest = self.without(&text);
        // Who chose the link in the file's place chose what is behind it.
        if !rest.inside || file.path() != before.path() {
            return file.restore(&rest.text, host);
        }
        match host.choices.of(file.path(), &self.present_blocks(&text)) {
            Some(Keep::Theirs) => file.restore(&rest.text, host),
            Some(Keep::Ours) => {
                put_aside(file.path(), &file.present()?, host)?;
                file.restore(&self.cut(&text), host)
            }
            None => bail!(undecided(file.path())),
        }
    }
}

/// A text without our block.
struct Rest {
    text: String,
    /// Whether somebody wrote into the block, between its first and its last line.
    inside: bool,
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
        before.write(&self.with_block(&before.read()?))
    }

    fn undo(&self, host: &Host<'_>, before: &Original) -> Result<()> {
        self.take_out(host, before)?;
        before.follow(host, |text| Ok(self.without(text).text))
    }

    fn look_for_conflicts(&self, scan: &mut Scan<'_>, before: &Original) -> Result<()> {
        let Some(text) = before.look_for_conflicts(scan)? else { return Ok(()) };
        if self.without(&text).inside {
            let reason = "somebody else wrote into the block that the migration added";
            // Only the block is chosen about, and shown: the rest of the file is merged, also by other steps, and may hold secrets.
            let mut conflict = before.conflict(&self.present_blocks(&text), reason, scan.host)?;
            conflict.before = Version::of("no block");
            conflict.ours = Version { what: "a block".to_owned(), text: Some(self.block()) };
            conflict.now =
                Version { what: "the block with other lines".to_owned(), text: Some(self.blocks(&text)) };
            scan.conflict(conflict);
        }
        Ok(())
    }

    fn look_for_drift(&self, host: &Host<'_>, _: Option<&Original>) -> Result<Vec<Drift>> {
        let file = Original::capture(&self.path, host)?;
        let text = file.read()?;
        if self.is_whole(&text) {
            return Ok(Vec::new());
        }
        if !self.without(&text).inside {
            let found = match text.contains(&self.marker) {
                true => "lines are missing in the block that nix-unroot added",
                false => "the block that nix-unroot added is gone",
            };
            return Ok(vec![Drift::new(&self.path, Aspect::Content, found, Repair::Again)]);
        }
        let reason = "somebody wrote into the block that nix-unroot added";
        let mut conflict = file.conflict(&file.present()?, reason, host)?;
        conflict.before = Version::of("no block");
        conflict.ours = Version { what: "a block".to_owned(), text: Some(self.block()) };
        conflict.now =
            Version { what: "the block with other lines".to_owned(), text: Some(self.blocks(&text)) };
        let instead = Self { replaces: true, ..self.clone() };
        let repair = Repair::By(Box::new(Action::AppendBlock(instead)));
        let drift = Drift::new(&self.path, Aspect::Content, reason, repair);
        Ok(vec![Drift { conflict: Some(conflict), ..drift }])
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::test_host::{chosen, conflicts, host};
    use super::*;

    fn action(dir: &Path) -> AppendBlock {
        AppendBlock {
            path: dir.join("nix.conf"),
            marker: "# ours".to_owned(),
            text: "a = 1\nb = 2".to_owned(),
            replaces: false,
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

    /// The file after our block was added to `x = 1` and somebody edited it, and the state before.
    fn edited(dir: &Path, edit: impl Fn(String) -> String) -> (AppendBlock, Original) {
        let (host, action) = (host(dir), action(dir));
        fs::create_dir(&host.backups).unwrap();
        fs::write(&action.path, "x = 1\n").unwrap();
        let before = action.capture(&host).unwrap();
        action.apply(&host, &before).unwrap();
        fs::write(&action.path, edit(fs::read_to_string(&action.path).unwrap())).unwrap();
        (action, before)
    }

    #[test]
    fn edits_outside_the_block_and_lines_deleted_in_it_are_merged() {
        let dir = tempfile::tempdir().unwrap();
        let (action, before) = edited(dir.path(), |text| {
            format!("{}y = 2\n", text.replace("x = 1", "x = 9").replace("b = 2\n", ""))
        });
        assert!(conflicts(dir.path(), &action, &before).is_empty());
        action.undo(&host(dir.path()), &before).unwrap();
        assert_eq!(fs::read_to_string(&action.path).unwrap(), "x = 9\ny = 2\n");
    }

    #[test]
    fn an_edit_inside_the_block_needs_a_choice() {
        for (keep, left, aside) in
            [(Keep::Theirs, "x = 1\nb = 3\ny = 2\n", false), (Keep::Ours, "x = 1\ny = 2\n", true)]
        {
            let dir = tempfile::tempdir().unwrap();
            let (action, before) =
                edited(dir.path(), |text| format!("{}y = 2\n", text.replace("b = 2", "b = 3")));
            let error = action.undo(&host(dir.path()), &before).unwrap_err().to_string();
            assert!(error.contains("nix.conf") && error.contains("nix-unroot rollback"), "{error}");
            let found = conflicts(dir.path(), &action, &before);
            let diff: Vec<_> = found[0].diff().into_iter().filter(|line| !line.starts_with(' ')).collect();
            assert_eq!(diff[1..], ["-b = 2", "+b = 3"], "only the block is shown");
            let host = chosen(dir.path(), &found[0], keep);
            for _ in 0..2 {
                action.undo(&host, &before).unwrap();
                assert_eq!(fs::read_to_string(&action.path).unwrap(), left);
            }
            let kept = fs::read_to_string(host.backups.join("put-aside-nix.conf")).ok();
            assert_eq!(kept.is_some_and(|text| text.contains("b = 3")), aside);
        }
    }

    /// A choice about one block holds when another of ours went before.
    #[test]
    fn each_of_two_blocks_in_a_file_is_chosen_about_by_itself() {
        for first in [0, 1] {
            let dir = tempfile::tempdir().unwrap();
            let (host, one) = (host(dir.path()), action(dir.path()));
            let other =
                AppendBlock { marker: "# others".to_owned(), text: "c = 3".to_owned(), ..one.clone() };
            fs::create_dir(&host.backups).unwrap();
            fs::write(&one.path, "x = 1\n").unwrap();
            let steps = [&one, &other].map(|action| {
                let before = action.capture(&host).unwrap();
                action.apply(&host, &before).unwrap();
                (action, before)
            });
            let text = fs::read_to_string(&one.path).unwrap();
            fs::write(&one.path, text.replace("c = 3", "c = 3\nd = 4")).unwrap();
            let found: Vec<_> =
                steps.iter().flat_map(|(action, before)| conflicts(dir.path(), *action, before)).collect();
            assert_eq!(found.len(), 1);
            let host = chosen(dir.path(), &found[0], Keep::Theirs);
            for (action, before) in [&steps[first], &steps[1 - first]] {
                action.undo(&host, before).unwrap();
            }
            assert_eq!(fs::read_to_string(&one.path).unwrap(), "x = 1\nd = 4\n");
        }
    }

    /// Whatever somebody made of the block: it is found, put back where nothing is lost by that, and undone to the byte.
    #[test]
    fn a_drifted_block_is_put_back_and_that_undone_exactly() {
        type Edit = fn(String) -> String;
        let rows: [(&str, Option<bool>, Edit); 5] = [
            ("nothing", None, |text| text),
            ("lines behind it", None, |text| text + "y = 2\n"),
            ("the block is gone", Some(false), |_| "x = 1\n# theirs\n".to_owned()),
            ("a line is gone", Some(false), |text| text.replace("b = 2\n", "")),
            ("a line is changed", Some(true), |text| text.replace("b = 2", "b = 3") + "y = 2\n"),
        ];
        for (name, found, edit) in rows {
            let dir = tempfile::tempdir().unwrap();
            let (host, (action, before)) = (host(dir.path()), edited(dir.path(), edit));
            let drifts = action.look_for_drift(&host, Some(&before)).unwrap();
            assert_eq!(drifts.first().map(|drift| drift.conflict.is_some()), found, "{name}");
            let Some(drift) = drifts.into_iter().next() else { continue };
            let repair = match drift.repair {
                Repair::Again => action.clone(),
                Repair::By(other) => match *other {
                    Action::AppendBlock(other) => other,
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            };
            let drifted = repair.capture(&host).unwrap();
            repair.apply(&host, &drifted).unwrap();
            assert!(action.look_for_drift(&host, Some(&before)).unwrap().is_empty(), "{name}");
            assert!(!fs::read_to_string(&action.path).unwrap().contains("b = 3"), "{name}");
            for _ in 0..2 {
                repair.undo(&host, &drifted).unwrap();
                assert_eq!(repair.capture(&host).unwrap(), drifted, "{name}");
                // As a rollback leaves it that dies before the time stamp; the next one looks for conflicts first.
                fs::write(&action.path, fs::read(&action.path).unwrap()).unwrap();
                assert!(conflicts(dir.path(), &repair, &drifted).is_empty(), "{name}");
            }
        }
    }

    #[test]
    fn a_link_in_the_place_of_the_file_needs_a_choice() {
        for keep in [Keep::Theirs, Keep::Ours] {
            let dir = tempfile::tempdir().unwrap();
            let (action, before) = edited(dir.path(), |text| text);
            let managed = dir.path().join("managed.conf");
            fs::rename(&action.path, &managed).unwrap();
            std::os::unix::fs::symlink(&managed, &action.path).unwrap();
            let found = conflicts(dir.path(), &action, &before);
            assert!(found[0].now.what.starts_with("a link to "), "{found:?}");
            assert!(action.undo(&host(dir.path()), &before).is_err());
            action.undo(&chosen(dir.path(), &found[0], keep), &before).unwrap();
            assert_eq!(fs::read_to_string(&action.path).unwrap(), "x = 1\n");
            assert_eq!(action.path.is_symlink(), keep == Keep::Theirs);
            let ours_is_in_theirs = fs::read_to_string(&managed).unwrap().contains("# ours");
            assert_eq!(ours_is_in_theirs, keep == Keep::Ours, "their file is theirs when ours is chosen");
        }
    }

    #[test]
    fn a_file_in_the_place_of_the_link_keeps_no_block() {
        for edit in ["", "y = 2\n"] {
            let dir = tempfile::tempdir().unwrap();
            let (host, action) = (host(dir.path()), action(dir.path()));
            let target = dir.path().join("target.conf");
            fs::write(&target, "x = 1\n").unwrap();
            std::os::unix::fs::symlink(&target, &action.path).unwrap();
            let before = action.capture(&host).unwrap();
            action.apply(&host, &before).unwrap();
            // As sed -i does.
            let text = fs::read_to_string(&target).unwrap().replace("b = 2", "b = 3");
            fs::remove_file(&action.path).unwrap();
            fs::write(&action.path, text + edit).unwrap();
            assert!(conflicts(dir.path(), &action, &before).is_empty());
            for _ in 0..2 {
                action.undo(&host, &before).unwrap();
                let left = fs::read_to_string(&action.path).unwrap();
                assert_eq!(left, format!("x = 1\nb = 3\n{edit}"), "what they wrote stays");
                assert_eq!(fs::read_to_string(&target).unwrap(), "x = 1\n");
            }
        }
    }

    #[test]
    fn what_is_no_text_any_more_needs_a_choice() {
        for keep in [Keep::Theirs, Keep::Ours] {
            let dir = tempfile::tempdir().unwrap();
            let (action, before) = edited(dir.path(), |text| text);
            let made = [&fs::read(&action.path).unwrap()[..], b"# caf\xe9\n"].concat();
            fs::write(&action.path, &made).unwrap();
            let found = conflicts(dir.path(), &action, &before);
            assert!(found[0].now.text.is_none() && found[0].reason.contains("no text"), "{found:?}");
            assert!(action.undo(&host(dir.path()), &before).is_err());
            let host = chosen(dir.path(), &found[0], keep);
            for _ in 0..2 {
                action.undo(&host, &before).unwrap();
                let left = if keep == Keep::Theirs { &made[..] } else { b"x = 1\n" };
                assert_eq!(fs::read(&action.path).unwrap(), left);
            }
            let kept = fs::read(host.backups.join("put-aside-nix.conf")).ok();
            assert_eq!(kept, (keep == Keep::Ours).then_some(made));
        }
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
