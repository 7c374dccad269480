//! launchd's jobs are loaded.

use std::path::Path;

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::drift::{Aspect, Drift, Repair};
use super::stop_jobs::Job;
use super::{Act, Host};
use crate::platform::launchd;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartJobs {
    /// The jobs, in this order.
    pub jobs: Vec<Job>,
}

impl StartJobs {
    fn labels(&self) -> String {
        self.jobs.iter().map(|job| job.label.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl Act for StartJobs {
    type Before = ();

    fn changes(&self) -> String {
        format!("loads {}", self.labels())
    }

    fn undone_by(&self) -> String {
        format!("unloads {}", self.labels())
    }

    /// They may be loaded because the machine restarted in the middle of a run; undoing unloads them all the same.
    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, _: &Host<'_>, (): &()) -> Result<()> {
        for job in &self.jobs {
            launchd::load(&job.label, &job.path)?;
            if !launchd::is_loaded(&job.label)? {
                bail!("launchd took {} and does not know {}", job.path.display(), job.label);
            }
        }
        Ok(())
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        self.jobs.iter().rev().try_for_each(|job| launchd::unload(&job.label))
    }

    fn look_for_drift(&self, _: &Host<'_>, _: Option<&()>) -> Result<Vec<Drift>> {
        let mut found = Vec::new();
        for job in &self.jobs {
            if !launchd::is_loaded(&job.label)? {
                let what = "launchd does not know it".to_owned();
                found.push(Drift::new(Path::new(&job.label), Aspect::Runs, what, Repair::Restart));
            }
        }
        Ok(found)
    }
}
