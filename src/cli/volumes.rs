//! Volumes of a Mac that a recorded run needs to go on or back.

use std::path::PathBuf;

use anyhow::Result;

use super::runs;
use crate::actions::Action;
use crate::engine;
use crate::journal::Run;

fn need_all(run: &Run) -> Result<()> {
    for step in engine::recorded_plan(run)?.steps {
        if let Action::NeedVolume(needed) = step.action {
            needed.check()?;
        }
    }
    Ok(())
}

/// A volume that a run worked on, and that diskutil does not know any more.
pub struct Lost {
    name: String,
    /// Where it was mounted.
    pub mount_point: PathBuf,
    /// Whether the run made it.
    was_made: bool,
}

impl Lost {
    /// That it is gone.
    pub fn is_not_there(&self) -> String {
        format!("the volume {} is not there, which {} was", self.name, self.mount_point.display())
    }

    /// The same, and what that means for undoing the run.
    pub fn passed_over(&self) -> String {
        format!(
            "{}: what was done on it is passed over; if its disk is only not connected, connect that first",
            self.is_not_there()
        )
    }
}

/// The volume without which the run is undone: one that it made, which would go anyway, or `any` that it worked on.
///
/// # Errors
/// When another that it worked on is not there or not mounted, or diskutil does not answer.
pub fn missing(run: &Run, any: bool) -> Result<Option<Lost>> {
    let lost = lost(run)?.filter(|lost| lost.was_made || any);
    if lost.is_none() {
        need_all(run)?;
    }
    Ok(lost)
}

/// The volume of this run that is gone, mounted or not.
///
/// # Errors
/// When diskutil does not answer.
pub fn lost(run: &Run) -> Result<Option<Lost>> {
    let plan = engine::recorded_plan(run)?;
    for step in &plan.steps {
        match &step.action {
            Action::NeedVolume(needed) if needed.is_gone()? => {
                let (name, mount_point) = (needed.uuid.clone(), needed.mount_point.clone().into());
                return Ok(Some(Lost { name, mount_point, was_made: false }));
            }
            Action::CreateVolume(made)
                if made.is_gone(&engine::run_directory(&runs::backups(), run.id))? =>
            {
                let (name, mount_point) = (made.name.clone(), "/nix".into());
                return Ok(Some(Lost { name, mount_point, was_made: true }));
            }
            _ => {}
        }
    }
    Ok(None)
}
