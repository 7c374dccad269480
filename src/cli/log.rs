//! Messages on standard error, as text or as JSON, and their copy in the journal.

use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::journal::RunLog;
use crate::system::text::{escaped_json, for_terminal};

/// How messages are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Info,
    Warning,
    Error,
}

/// Something that is told.
#[derive(Clone, Debug)]
pub struct Event {
    level: Level,
    /// What kind: `step`, `finding`, `question`, ...
    name: &'static str,
    /// For people, perhaps with colours.
    text: String,
    details: Map<String, Value>,
}

impl Event {
    pub fn new(name: &'static str, text: impl Into<String>) -> Self {
        Self { level: Level::Info, name, text: text.into(), details: Map::new() }
    }

    pub fn level(mut self, level: Level) -> Self {
        self.level = level;
        self
    }

    /// Adds what machines want to know by name.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    fn record(&self, run: Option<i64>) -> Value {
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let mut object = Map::new();
        object.insert("time".to_owned(), time.into());
        object.insert("level".to_owned(), serde_json::to_value(self.level).unwrap_or_default());
        object.insert("event".to_owned(), self.name.into());
        if let Some(run) = run {
            object.insert("run".to_owned(), run.into());
        }
        object.extend(self.details.clone());
        object.insert("text".to_owned(), console::strip_ansi_codes(&self.text).into());
        Value::Object(object)
    }
}

/// Where messages go.
#[derive(Debug, Default)]
pub struct Log {
    format: LogFormat,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    run: Option<i64>,
    file: Option<RunLog>,
    /// What was said before there was a run.
    before: Vec<Value>,
}

impl Log {
    pub fn new(format: LogFormat) -> Self {
        Self { format, ..Self::default() }
    }

    pub fn is_json(&self) -> bool {
        self.format == LogFormat::Json
    }

    /// Tells on standard error.
    pub fn tell(&self, event: &Event) {
        self.tell_with(event, |text| {
            // A log or a connection that went away is no reason to stop halfway.
            let _ = writeln!(std::io::stderr(), "{text}");
        });
    }

    /// The same, with another way to print where text is wanted.
    pub fn tell_with(&self, event: &Event, print: impl FnOnce(&str)) {
        if self.is_json() {
            let record = event.record(self.state().run).to_string();
            let _ = writeln!(std::io::stderr(), "{}", escaped_json(&record));
        } else {
            print(&for_terminal(event.text()));
        }
        self.keep(event);
    }

    /// Only for the journal: it was shown already.
    pub fn keep(&self, event: &Event) {
        let mut state = self.state();
        let record = event.record(state.run);
        match &mut state.file {
            Some(file) => {
                // A full disk costs the log and not the run.
                let _ = file.append(&record);
            }
            None => state.before.push(record),
        }
    }

    /// From here on this is the log of a run: what was said before goes into it, too.
    pub fn belongs_to(&self, journal: &Path, run: i64, begins: bool) {
        let opened = if begins { RunLog::create(journal, run) } else { RunLog::open(journal, run) };
        {
            let mut state = self.state();
            state.run = Some(run);
            if let Ok(mut file) = opened {
                // They stay: a command may go through several runs, and they were about all of them.
                for record in &mut state.before {
                    record["run"] = run.into();
                    let _ = file.append(record);
                }
                state.file = Some(file);
                return;
            }
        }
        self.tell(
            &Event::new("log", "note: what is printed is not kept: the log of this run cannot be written")
                .level(Level::Warning),
        );
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::read_log;

    #[test]
    fn what_would_steer_a_terminal_is_not_printed() {
        let shown = std::cell::Cell::new(String::new());
        let event = Event::new("note", "\u{1b}[33mnote:\u{1b}[0m a\u{1b}]0;b\u{7}\n\tdiff");
        Log::new(LogFormat::Text).tell_with(&event, |text| shown.set(text.to_owned()));
        assert_eq!(shown.take(), "\u{1b}[33mnote:\u{1b}[0m a]0;b\n\tdiff");
    }

    #[test]
    fn a_run_has_what_was_said_before_it_and_since() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("journal.sqlite");
        let log = Log::new(LogFormat::Text);
        let text = std::cell::Cell::new(String::new());
        let finding =
            Event::new("finding", "\u{1b}[31mblocker\u{1b}[0m: x").level(Level::Error).with("key", "k");
        log.tell_with(&finding, |shown| text.set(shown.to_owned()));
        assert!(text.take().contains("blocker"));
        log.belongs_to(&journal, 3, true);
        log.keep(&Event::new("step", "done").with("step", "stop"));
        let kept = read_log(&journal, 3).unwrap();
        let field = |at: usize, name: &str| kept[at][name].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            (field(0, "text"), field(0, "level"), field(0, "key")),
            ("blocker: x".into(), "error".into(), "k".into())
        );
        assert_eq!((field(1, "event"), field(1, "step")), ("step".into(), "stop".into()));
        assert_eq!((&kept[0]["run"], &kept[1]["run"]), (&3.into(), &3.into()));
        assert!(
            field(0, "time").ends_with('Z') && field(0, "time").len() == "2026-11-21T09:30:00.000Z".len()
        );
    }
}
