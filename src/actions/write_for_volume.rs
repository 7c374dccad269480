//! A file whose text names a volume that is made only by the same run.

use std::path::PathBuf;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conflict::Scan;
use super::create_volume;
use super::drift::{Aspect, Drift};
use super::write_file::WriteFile;
use super::{Act, Host, show};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteForVolume {
    /// Where it lies; root owns it.
    pub path: PathBuf,
    /// Permission bits in octal.
    pub mode: String,
    /// Its whole text, with `@VOLUME_UUID@` where the volume's UUID goes.
    pub text: String,
    /// The volume's name.
    pub volume: String,
}

/// What was there, and what comes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Was {
    file: WriteFile,
    before: <WriteFile as Act>::Before,
}

impl Act for WriteForVolume {
    type Before = Was;

    fn changes(&self) -> String {
        let (path, lines) = (show(&self.path), self.text.lines().count());
        format!("writes {path} ({lines} lines, root:root {}), with the UUID of {}", self.mode, self.volume)
    }

    fn undone_by(&self) -> String {
        "puts back what was there, or removes it".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, host: &Host<'_>) -> Result<Was> {
        let text = create_volume::fill(&self.text, host, &self.volume)?;
        let file = WriteFile { path: self.path.clone(), mode: self.mode.clone(), text };
        Ok(Was { before: file.capture(host)?, file })
    }

    fn apply(&self, host: &Host<'_>, was: &Was) -> Result<()> {
        was.file.apply(host, &was.before)
    }

    fn undo(&self, host: &Host<'_>, was: &Was) -> Result<()> {
        was.file.undo(host, &was.before)
    }

    fn look_for_conflicts(&self, scan: &mut Scan<'_>, was: &Was) -> Result<()> {
        was.file.look_for_conflicts(scan, &was.before)
    }

    fn look_for_drift(&self, host: &Host<'_>, was: Option<&Was>) -> Result<Vec<Drift>> {
        was.map_or(Ok(Vec::new()), |was| was.file.look_for_drift(host, Some(&was.before)))
    }

    fn decides(&self, path: &std::path::Path, aspect: Aspect) -> bool {
        path == self.path && aspect != Aspect::Runs
    }
}
