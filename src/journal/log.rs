//! What a run printed, beside the journal: `run-N.log`, a JSON object in each line.
//!
//! It is for people who ask later, and nothing is decided by it. So it is not flushed to the disk line by line as the journal
//! is, and a disk that is full costs the log and not the run.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::set_aside;

/// The log of one run, to be written to.
#[derive(Debug)]
pub struct RunLog(File);

impl RunLog {
    /// Opens the log of `run` for what comes next.
    ///
    /// # Errors
    /// The system's reason.
    pub fn open(journal: &Path, run: i64) -> io::Result<Self> {
        let options = OpenOptions::new().append(true).create(true).mode(0o600).to_owned();
        options.open(path(journal, run)).map(Self)
    }

    /// The log of a run that begins: an older one of this number, of a journal that is gone, gets another name.
    ///
    /// # Errors
    /// As [`RunLog::open`].
    pub fn create(journal: &Path, run: i64) -> io::Result<Self> {
        set_aside(&path(journal, run), "before")?;
        Self::open(journal, run)
    }

    /// Appends an object; a line is written as one, so that a process that dies leaves whole ones.
    ///
    /// # Errors
    /// The system's reason.
    pub fn append(&mut self, object: &Value) -> io::Result<()> {
        self.0.write_all(format!("{object}\n").as_bytes())
    }
}

/// What was printed when `run` ran, the oldest first; lines that a full disk or a power cut tore are left out.
///
/// # Errors
/// When there is a log and it cannot be read.
pub fn read_log(journal: &Path, run: i64) -> io::Result<Vec<Value>> {
    let text = match fs::read(path(journal, run)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text?,
    };
    let lines = text.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

fn path(journal: &Path, run: i64) -> PathBuf {
    journal.with_file_name(format!("run-{run}.log"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_a_torn_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("journal.sqlite");
        assert!(read_log(&journal, 1).unwrap().is_empty());
        RunLog::create(&journal, 1).unwrap().append(&json!({"text": "one"})).unwrap();
        let mut log = RunLog::open(&journal, 1).unwrap();
        log.append(&json!({"text": "two"})).unwrap();
        log.0.write_all(b"{\"text\": \"to").unwrap();
        assert_eq!(read_log(&journal, 1).unwrap(), [json!({"text": "one"}), json!({"text": "two"})]);
        RunLog::create(&journal, 1).unwrap();
        assert!(read_log(&journal, 1).unwrap().is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the old log is kept under another name");
    }
}
