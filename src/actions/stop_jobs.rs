//! launchd's jobs are unloaded, and what they left running ends.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::drain::{Processes, drain};
use super::{Act, Host};
use crate::platform::launchd;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopJobs {
    /// The jobs, in the order in which they are stopped.
    pub jobs: Vec<Job>,
    /// Uids that builds run under.
    pub build_uids: Vec<u32>,
    /// How long builds are waited for, in seconds.
    pub drain_timeout: u64,
}

/// A job of launchd.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its label.
    pub label: String,
    /// Its property list.
    pub path: PathBuf,
}

impl Act for StopJobs {
    /// Labels of those that launchd knew.
    type Before = Vec<String>;

    fn changes(&self) -> String {
        let labels: Vec<_> = self.jobs.iter().map(|job| job.label.as_str()).collect();
        format!("unloads {}; waits up to {} s for builds", labels.join(", "), self.drain_timeout)
    }

    fn undone_by(&self) -> String {
        "loads those that were loaded".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<Vec<String>> {
        let mut loaded = Vec::new();
        for job in &self.jobs {
            if launchd::is_loaded(&job.label)? {
                loaded.push(job.label.clone());
            }
        }
        Ok(loaded)
    }

    fn apply(&self, host: &Host<'_>, _: &Vec<String>) -> Result<()> {
        for job in &self.jobs {
            launchd::unload(&job.label)?;
        }
        let processes = Processes { build_uids: &self.build_uids, daemon_uids: &[0] };
        drain(host, &processes, Duration::from_secs(self.drain_timeout))
    }

    fn undo(&self, host: &Host<'_>, loaded: &Vec<String>) -> Result<()> {
        // The daemon needs the volume, which another job mounts: the last one first.
        for job in self.jobs.iter().rev().filter(|job| loaded.contains(&job.label)) {
            if job.path.exists() {
                launchd::load(&job.label, &job.path)?;
            } else {
                let path = job.path.display();
                host.observer.note(&format!("{} was loaded, and {path} is not there any more", job.label));
            }
        }
        Ok(())
    }
}
