//! A copy of a run's record that does not depend on SQLite: a text file beside the journal to which each change is
//! appended, durably, before the journal gets it.
//!
//! A line is `CHECK JSON`, where CHECK is the SHA-256 of the check before and this line's JSON. So a line that was
//! changed, lost or moved is found, and a line that a power cut tore can only be the last: it is cut off. What the journal
//! says and what the copy says must be the same, and that tells whether the journal is damaged also where SQLite sees
//! nothing wrong: it drops the end of a damaged log without a word.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::states::{RunState, StepState};
use crate::system::files::sync_parent;

/// What the first line's check is made from, in place of the check before.
const FORMAT: &str = "nix-unroot record 1";
const EXTENSION: &str = "record";
/// That of one that is being made.
const UNFINISHED: &str = "record-new";

/// A change of a run's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// The run began; always the first, and only that.
    Begun {
        /// Its number.
        run: i64,
        /// The plan's name.
        plan_name: String,
        /// Version of the tool.
        tool_version: String,
        /// When, in UTC.
        started: String,
        /// The plan, as JSON.
        plan: String,
        /// Ids of its steps.
        steps: Vec<String>,
    },
    /// The run's state is another.
    Run {
        /// It is now.
        state: RunState,
    },
    /// A step's state is another.
    Step {
        /// Which.
        index: usize,
        /// It is now.
        state: StepState,
        /// What was captured, when that is new.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        captured: Option<String>,
        /// The error, when there is a new one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

/// What a record's events come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sum {
    /// The plan, as JSON.
    pub plan: String,
    /// How far the run is.
    pub run: RunState,
    /// Each step's id, how far it is, and what it captured.
    pub steps: Vec<(String, StepState, Option<String>)>,
}

impl Sum {
    /// Of these events; `None` when they make no sense.
    pub fn of(events: &[Event]) -> Option<Self> {
        let (Event::Begun { plan, steps, .. }, rest) = events.split_first()? else { return None };
        let steps = steps.iter().map(|id| (id.clone(), StepState::Pending, None)).collect();
        let mut sum = Self { plan: plan.clone(), run: RunState::Applying, steps };
        for event in rest {
            match event {
                Event::Begun { .. } => return None,
                Event::Run { state } => sum.run = *state,
                Event::Step { index, state, captured, .. } => {
                    let step = sum.steps.get_mut(*index)?;
                    step.1 = *state;
                    if captured.is_some() {
                        step.2.clone_from(captured);
                    }
                }
            }
        }
        Some(sum)
    }
}

/// A run's copy, open for more.
#[derive(Debug)]
pub struct Copy {
    file: File,
    check: String,
    length: u64,
}

impl Copy {
    /// Where the copy of run `run` is kept, beside `journal`.
    pub fn path(journal: &Path, run: i64) -> PathBuf {
        journal.with_file_name(format!("run-{run}.{EXTENSION}"))
    }

    /// Makes the file, with these events, and puts it in its place when it is whole: a part of a copy would pass for all that happened.
    ///
    /// # Errors
    /// The system's reason.
    pub fn create(path: &Path, events: &[Event]) -> io::Result<Self> {
        let anew = path.with_extension(UNFINISHED);
        let make = || {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&anew)?;
            let mut copy = Self { file, check: FORMAT.to_owned(), length: 0 };
            events.iter().try_for_each(|event| copy.write(event))?;
            copy.file.sync_data()?;
            fs::rename(&anew, path)?;
            sync_parent(path)?;
            Ok(copy)
        };
        make().inspect_err(|_| drop(fs::remove_file(&anew)))
    }

    /// Opens the file; also what it holds. A torn last line is cut off when the next event is appended.
    ///
    /// # Errors
    /// The system's reason, and `InvalidData` when it is damaged, or holds events that this version does not know.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<Event>)> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let (events, check, length) = read(&file)?;
        Ok((Self { file, check, length }, events))
    }

    /// What the file holds.
    ///
    /// # Errors
    /// As [`Copy::open`].
    pub fn read(path: &Path) -> io::Result<Vec<Event>> {
        Ok(read(&File::open(path)?)?.0)
    }

    /// Appends an event; on return it survives a power cut.
    ///
    /// # Errors
    /// The system's reason; then the copy is what it was.
    pub fn append(&mut self, event: &Event) -> io::Result<()> {
        let before = (self.length, self.check.clone());
        let written = self.write(event).and_then(|()| self.file.sync_data());
        if written.is_err() {
            (self.length, self.check) = before;
        }
        written
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        let json = serde_json::to_string(event)?;
        let check = check(&self.check, &json);
        let line = format!("{check} {json}\n");
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.write_all(line.as_bytes())?;
        self.length += line.len() as u64;
        self.check = check;
        Ok(())
    }
}

/// Runs with a copy beside `journal`, and where it is, in order.
///
/// # Errors
/// When the directory cannot be read.
pub fn all(journal: &Path) -> io::Result<Vec<(i64, PathBuf)>> {
    let Some(directory) = journal.parent() else { return Ok(Vec::new()) };
    let mut copies = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = name.strip_prefix("run-").and_then(|rest| rest.strip_suffix(".record"));
        if let Some(run) = number.and_then(|number| number.parse().ok()) {
            copies.push((run, path));
        }
    }
    copies.sort();
    Ok(copies)
}

/// The events, the last check, and how many bytes are sound.
fn read(mut file: &File) -> io::Result<(Vec<Event>, String, u64)> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    let (mut events, mut last, mut sound) = (Vec::new(), FORMAT.to_owned(), 0);
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let Some((given, json)) = std::str::from_utf8(line)
            .ok()
            .and_then(|line| line.strip_suffix('\n')?.split_once(' '))
            .filter(|(given, json)| check(&last, json) == *given)
        else {
            // Behind a torn line there can be nothing, and what did not get to the disk is missing, or zeros.
            let torn = !line.ends_with(b"\n") || line.contains(&0);
            if torn && sound as usize + line.len() == bytes.len() {
                break;
            }
            return Err(invalid(format!("line {} is damaged", events.len() + 1)));
        };
        let event = serde_json::from_str(json)
            .map_err(|error| invalid(format!("line {} is not known here: {error}", events.len() + 1)))?;
        events.push(event);
        last = given.to_owned();
        sound += line.len() as u64;
    }
    Ok((events, last, sound))
}

fn check(before: &str, json: &str) -> String {
    let digest = Sha256::new().chain_update(before).chain_update(json).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> Event {
        Event::Begun {
            run: 1,
            plan_name: "migrate".to_owned(),
            tool_version: "1".to_owned(),
            started: "now".to_owned(),
            plan: "{}".to_owned(),
            steps: vec!["a".to_owned(), "b".to_owned()],
        }
    }

    fn step(index: usize, state: StepState, captured: Option<&str>) -> Event {
        Event::Step { index, state, captured: captured.map(str::to_owned), error: None }
    }

    fn copy(dir: &Path) -> (PathBuf, Vec<Event>) {
        let path = Copy::path(&dir.join("journal.sqlite"), 1);
        let events = vec![begun(), step(0, StepState::Doing, Some("\"x\"")), step(0, StepState::Done, None)];
        Copy::create(&path, &events).unwrap();
        (path, events)
    }

    #[test]
    fn events_come_back_and_add_up() {
        let dir = tempfile::tempdir().unwrap();
        let (path, mut events) = copy(dir.path());
        let (mut open, seen) = Copy::open(&path).unwrap();
        assert_eq!(seen, events);
        events.push(Event::Run { state: RunState::Undoing });
        open.append(&events[3]).unwrap();
        assert_eq!(Copy::read(&path).unwrap(), events);
        let sum = Sum::of(&events).unwrap();
        assert_eq!(sum.run, RunState::Undoing);
        assert_eq!(
            sum.steps,
            [
                ("a".to_owned(), StepState::Done, Some("\"x\"".to_owned())),
                ("b".to_owned(), StepState::Pending, None)
            ]
        );
        assert_eq!(all(&dir.path().join("journal.sqlite")).unwrap(), [(1, path)]);
    }

    #[test]
    fn every_changed_byte_is_found_and_a_torn_end_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let (path, events) = copy(dir.path());
        let bytes = fs::read(&path).unwrap();
        let last = bytes[..bytes.len() - 1].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
        for at in 0..last {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            fs::write(&path, changed).unwrap();
            assert!(Copy::read(&path).is_err(), "byte {at}");
        }
        for length in last..bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            let (mut open, seen) = Copy::open(&path).unwrap();
            assert_eq!(seen, events[..2], "{length} bytes");
            open.append(&events[2]).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn an_unknown_event_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (path, _) = copy(dir.path());
        let json = r#"{"event":"frobbed"}"#;
        let (_, last, _) = read(&File::open(&path).unwrap()).unwrap();
        let line = format!("{} {json}\n", check(&last, json));
        OpenOptions::new().append(true).open(&path).unwrap().write_all(line.as_bytes()).unwrap();
        let error = Copy::read(&path).unwrap_err().to_string();
        assert!(error.contains("line 4") && error.contains("frobbed"), "{error}");
    }
}
