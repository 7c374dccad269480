//! The finished state is proved on the live Mac.

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host, gid_of, uid_of};
use crate::types::SubidRange;
use crate::verify::{self, Target};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyMac {
    /// The user that owns the store.
    pub user: String,
    /// Its group.
    pub group: String,
    /// The group of build users.
    pub build_group: String,
    /// First uid of builds.
    pub start: u32,
    /// How many.
    pub count: u32,
}

impl VerifyMac {
    fn target(&self) -> Result<Target> {
        let builds = SubidRange::new(self.start, self.count).context("the plan names no uids of builds")?;
        let (uid, gid) = (uid_of(&self.user)?, gid_of(&self.group)?);
        Ok(verify::mac_target(uid, gid, gid_of(&self.build_group)?, builds))
    }
}

impl Act for VerifyMac {
    type Before = ();

    fn changes(&self) -> String {
        "connects as root and as nobody, and looks at jobs and owners; a failing check undoes the run"
            .to_owned()
    }

    fn undone_by(&self) -> String {
        "removes what is left of a check that was interrupted".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, host: &Host<'_>, (): &()) -> Result<()> {
        let target = self.target()?;
        verify::sweep_store(&target)?;
        let report = verify::run_on_mac(&target, &mut |result| {
            let word = if result.outcome.passed { "proved" } else { "FAILED" };
            host.observer.note(&format!("{word}: {} ({})", result.title, result.outcome.seen));
        });
        let failed: Vec<_> =
            report.checks.iter().filter(|check| !check.outcome.passed).map(|check| check.key).collect();
        if !failed.is_empty() {
            bail!("these checks failed: {}", failed.join(", "));
        }
        Ok(())
    }

    fn undo(&self, host: &Host<'_>, (): &()) -> Result<()> {
        // The next collection of garbage takes them, too.
        if let Err(error) = self.target().and_then(|target| Ok(verify::sweep_store(&target)?)) {
            host.observer.note(&format!("something of an interrupted check may be left: {error:#}"));
        }
        Ok(())
    }
}
