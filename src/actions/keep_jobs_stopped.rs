//! Nothing of Nix runs on a Mac from here on, in either direction.
//!
//! The jobs are disabled or have no property list before this step and after its undoing, but a Mac that restarted in the middle of a run may
//! have started them before that: what changes hands next must have nobody at work in it.

use std::time::Duration;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::drain::{Processes, drain, end_all_of};
use super::{Act, Host};
use crate::platform::launchd;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepJobsStopped {
    /// Labels of the jobs, of the old daemon and of the new one.
    pub labels: Vec<String>,
    /// Uid of the new owner of the store.
    pub uid: u32,
    /// Uids that builds run under.
    pub build_uids: Vec<u32>,
    /// How long builds are waited for, in seconds.
    pub drain_timeout: u64,
}

impl Act for KeepJobsStopped {
    type Before = ();

    fn changes(&self) -> String {
        "makes sure that nothing of Nix runs, also after a restart in the middle".to_owned()
    }

    fn undone_by(&self) -> String {
        "the same, before anything changes hands again".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, host: &Host<'_>, (): &()) -> Result<()> {
        self.labels.iter().try_for_each(|label| launchd::unload(label))?;
        let daemon_uids = [0, self.uid];
        let processes = Processes { build_uids: &self.build_uids, daemon_uids: &daemon_uids };
        drain(host, &processes, Duration::from_secs(self.drain_timeout))?;
        // All that runs as this user is the daemon's: nobody can log in as it.
        end_all_of(host, self.uid)
    }

    fn undo(&self, host: &Host<'_>, (): &()) -> Result<()> {
        self.apply(host, &())
    }
}
