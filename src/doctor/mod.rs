//! What drifted since Nix was set up, told for people, and the plan that puts it back.

mod repair;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;

pub use repair::{Repairs, plan};

use crate::actions::Action;
use crate::actions::conflict::Conflict;
use crate::actions::drift::Repair;
use crate::engine::Drifted;
use crate::facts::{Machine, owning_packages};
use crate::journal::Run;
use crate::plan::{Options, Plan};
use crate::types::SubidRange;
use crate::verify::Target;

/// What can be done about a drift, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cure {
    /// `doctor --repair` puts it back.
    Repair,
    /// The same, once somebody has chosen whose version stays.
    Choice,
    /// A person has to do it.
    ByHand,
    /// Nothing: it may well be wanted.
    Notice,
}

/// A drift, for people and programs.
#[derive(Clone, Debug, JsonSchema, Serialize)]
pub struct Entry {
    /// The run whose work it was.
    pub run: i64,
    /// The step of that run.
    pub step: String,
    /// Where: a path, a unit, an account.
    pub what: PathBuf,
    /// What is there now.
    pub found: String,
    /// When it last changed, in seconds since 1970; not known of what is gone.
    pub changed: Option<i64>,
    /// The package that the path belongs to.
    pub package: Option<String>,
    /// What relied on it: the reason of the step.
    pub breaks: String,
    /// What can be done.
    pub cure: Cure,
    /// How, in words.
    pub remedy: String,
    /// Both versions, where there is a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflict: Option<Conflict>,
}

/// The run at the bottom, which set Nix up here; `None` when this tool did not.
pub fn base(runs: &[(Run, Plan)]) -> Option<&(Run, Plan)> {
    runs.iter().find(|(_, plan)| owner(plan).is_some())
}

/// The drifts for people, in the order of their steps.
pub fn entries(drifts: &[Drifted], options: &Options) -> Vec<Entry> {
    let paths: Vec<_> = drifts.iter().map(|drifted| drifted.drift.path.clone()).collect();
    let packages = owning_packages(&Machine::live(), &paths);
    let entry = |drifted: &Drifted| {
        let Drifted { run, step, drift } = drifted;
        let (cure, remedy) = remedy(drifted, options);
        Entry {
            run: *run,
            step: step.id.clone(),
            what: drift.path.clone(),
            found: drift.found.clone(),
            changed: changed(&drift.path),
            package: packages.get(&drift.path).cloned(),
            breaks: step.why.clone(),
            cure,
            remedy,
            conflict: drift.conflict.clone(),
        }
    };
    drifts.iter().map(entry).collect()
}

/// How long ago a thing changed, in words.
pub fn ago(changed: i64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    match now.saturating_sub(changed.unsigned_abs()) {
        seconds @ 0..120 => format!("{seconds} seconds ago"),
        seconds @ 120..7200 => format!("{} minutes ago", seconds / 60),
        seconds @ 7200..172_800 => format!("{} hours ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// What a machine should look like that this plan set up; `None` when its accounts are not there.
pub fn target(plan: &Plan) -> Option<Target> {
    let owner = owner(plan)?;
    let user = users::get_user_by_name(&owner.user)?;
    let mut target = Target::new(user.uid(), user.primary_group_id(), owner.range);
    target.build_users_uids = owner.build_uids;
    Some(target)
}

/// Whom a plan gave the store to.
struct Owner {
    user: String,
    group: String,
    range: SubidRange,
    build_uids: Vec<u32>,
    drain_timeout: u64,
}

fn owner(plan: &Plan) -> Option<Owner> {
    let actions = || plan.steps.iter().map(|step| &step.action);
    let stopped = actions().find_map(|action| match action {
        Action::KeepStopped(stopped) => Some(stopped),
        _ => None,
    })?;
    let group = actions().find_map(|action| match action {
        Action::CreateUser(user) if user.name == stopped.user => Some(user.group.clone()),
        _ => None,
    })?;
    let range = actions().find_map(|action| match action {
        Action::SubidLine(line) => SubidRange::new(line.start, line.count),
        _ => None,
    })?;
    let (user, build_uids) = (stopped.user.clone(), stopped.build_uids.clone());
    Some(Owner { user, group, range, build_uids, drain_timeout: stopped.drain_timeout })
}

fn remedy(drifted: &Drifted, options: &Options) -> (Cure, String) {
    let repairs = |text: String| format!("nix-unroot doctor --repair {text}");
    match &drifted.drift.repair {
        Repair::Never(remedy) => (Cure::ByHand, remedy.clone()),
        Repair::Notice(remedy) => (Cure::Notice, remedy.clone()),
        Repair::Restart => (Cure::Repair, repairs("starts the gate and the scanner again".to_owned())),
        Repair::Again | Repair::By(_) => match repair::step(drifted, options) {
            Err(remedy) => (Cure::ByHand, remedy),
            Ok(step) if drifted.drift.conflict.is_some() => {
                let text = format!(
                    "{} with --keep ours; with --keep theirs it stays as it is",
                    step.action.changes()
                );
                (Cure::Choice, repairs(text))
            }
            Ok(step) => (Cure::Repair, repairs(step.action.changes())),
        },
    }
}

/// Also a change of owner or mode counts.
fn changed(path: &Path) -> Option<i64> {
    path.is_absolute().then(|| fs::symlink_metadata(path).ok().map(|metadata| metadata.ctime())).flatten()
}

#[cfg(test)]
mod tests;
