//! The finished state is proved on the live machine.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host, gid_of, uid_of};
use crate::platform::paths;
use crate::system::command;
use crate::system::pause::Pause;
use crate::system::watched::Watched;
use crate::types::SubidRange;
use crate::verify::{self, Target};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// The user that owns the store.
    pub user: String,
    /// Its group.
    pub group: String,
    /// First uid of builds.
    pub start: u32,
    /// How many.
    pub count: u32,
    /// Uids of the build users of before, which must own nothing now.
    pub build_uids: Vec<u32>,
    /// On a Mac: the group of build users, who go on running builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_group: Option<String>,
    /// What serves meanwhile, where no init system does: a program that runs until SIGTERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<PathBuf>,
}

impl Verify {
    fn target(&self) -> Result<Target> {
        let range = SubidRange::new(self.start, self.count).context("the plan names no uids of builds")?;
        let (uid, gid) = (uid_of(&self.user)?, gid_of(&self.group)?);
        let mut target = match &self.build_group {
            Some(build_group) => Target::of_mac(uid, gid, gid_of(build_group)?, range),
            None => Target::new(uid, gid, range),
        };
        target.build_users_uids.clone_from(&self.build_uids);
        Ok(target)
    }

    fn serve(&self) -> Result<Option<Served>> {
        self.started_by.as_deref().map(Served::start).transpose()
    }
}

/// The daemon for the time of the checks; dropping it ends it.
struct Served(Option<Watched>);

impl Served {
    /// Longer than the gate and the scanner take to make their sockets.
    const PATIENCE: Duration = Duration::from_secs(20);
    const SOCKETS: [&str; 2] = [paths::ROOTS_SOCKET, paths::DAEMON_SOCKET];

    /// Starts it, unless it serves already.
    fn start(program: &Path) -> Result<Self> {
        let serves = || Self::SOCKETS.iter().all(|socket| UnixStream::connect(socket).is_ok());
        if serves() {
            return Ok(Self(None));
        }
        let context = || format!("cannot start {}", program.display());
        // It starts programs with other users' rights, and none of them may have our terminal: to write to, nor to read from.
        let mut command = command::clean_at(program);
        // It holds the lock of the run: when we are killed, the next one waits until it is gone, and not for ever.
        command::ends_with_us(&mut command);
        let child = Watched::start(command.stderr(Stdio::piped()), Vec::new(), 0).with_context(context)?;
        let mut served = Self(Some(child));
        let start = Instant::now();
        let mut pause = Pause::up_to(Duration::from_millis(50));
        while !serves() {
            if let Some(child) = &mut served.0
                && let Some(status) = child.ended()
            {
                let said = child.complaint();
                bail!("{} ended before it served ({status}): {said}", program.display());
            }
            if start.elapsed() > Self::PATIENCE {
                bail!("{} does not serve after {} s", program.display(), Self::PATIENCE.as_secs());
            }
            pause.wait();
        }
        Ok(served)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            child.terminate();
        }
    }
}

impl Act for Verify {
    type Before = ();

    fn changes(&self) -> String {
        let does = match self.build_group {
            Some(_) => "connects and builds, and looks at jobs and owners",
            None => "connects, builds and plants a GC root",
        };
        format!("{does}, and removes what that made; a failing check undoes the run")
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
        let _served = self.serve()?;
        // Anybody who may add to the store can give a path such a name, and keep it alive: no reason to fail.
        if let Err(error) = verify::sweep(&target) {
            tell_of_leftovers(host, &error.into());
        }
        let report = verify::run(&target, &mut |result| {
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
        let sweep = || -> Result<()> {
            let target = self.target()?;
            verify::sweep(&target).or_else(|_| {
                // The daemon deletes what was added, and where there is no init system nobody may have started it.
                let _served = self.serve()?;
                Ok(verify::sweep(&target)?)
            })
        };
        if let Err(error) = sweep() {
            tell_of_leftovers(host, &error);
        }
        Ok(())
    }
}

fn tell_of_leftovers(host: &Host<'_>, error: &anyhow::Error) {
    host.observer.note(&format!("something of an interrupted check may be left: {error:#}"));
}
