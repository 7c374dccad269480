//! Nothing of Nix runs from here on, in either direction.
//!
//! The units are masked before this step and after its undoing, but a machine that restarted in the middle of a run may
//! have started them before that: what changes hands next must have nobody at work in it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::drain::{Processes, drain, end_all_of, end_daemons};
use super::{Act, Host, no_writers, uid_of};
use crate::platform::systemd;
use crate::types::UnitName;

/// Where users get ranges of uids (subuid(5)).
const SUBUID: &str = "/etc/subuid";

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepStopped {
    /// The units of the old daemon and of the new one.
    pub units: Vec<UnitName>,
    /// The new owner of the store, by name.
    pub user: String,
    /// Uids that builds run under.
    pub build_uids: Vec<u32>,
    /// How long builds are waited for, in seconds.
    pub drain_timeout: u64,
}

impl Act for KeepStopped {
    /// The uid of the user: somebody may remove the account before this is undone.
    type Before = Option<u32>;

    fn changes(&self) -> String {
        "makes sure that nothing of Nix runs, also after a restart in the middle".to_owned()
    }

    fn undone_by(&self) -> String {
        format!("the same, before anything changes hands again; also ends all that {} runs", self.user)
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<Option<u32>> {
        uid_of(&self.user).map(Some)
    }

    fn apply(&self, host: &Host<'_>, uid: &Option<u32>) -> Result<()> {
        systemd::stop(&self.units)?;
        let uid = uid.map_or_else(|| uid_of(&self.user), Ok)?;
        let daemon_uids = [0, uid];
        let processes = Processes { build_uids: &self.build_uids, daemon_uids: &daemon_uids };
        drain(host, &processes, Duration::from_secs(self.drain_timeout))?;
        // The gate is no unit of anybody's there. The script that started it ends with it, and the scanner with that.
        if systemd::is_running() { Ok(()) } else { end_all_of(host, uid) }
    }

    fn undo(&self, host: &Host<'_>, uid: &Option<u32>) -> Result<()> {
        self.apply(host, uid)?;
        let uid = uid.map_or_else(|| uid_of(&self.user), Ok)?;
        // Nobody is to change the store while it goes back to root, and userdel refuses while a process is left.
        end_daemons(host, &self.user, uid, Path::new(SUBUID))?;
        // Whom the daemon's user handed a file to, could change it when it is root's.
        no_writers::wait_for_none(host, uid, &self.user)
    }
}
