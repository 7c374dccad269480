//! The plan of `doctor --repair`: the steps that drifted, once more.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use toml::Value;

use super::{Cure, owner, remedy};
use crate::actions::Action;
use crate::actions::drift::Repair;
use crate::engine::Drifted;
use crate::plan::{Context, Options, Plan, Step};

/// Where a repair is done with gate and scanner stopped: what they are, and what they rely on.
const RELIED_ON: [&str; 3] = ["/nix", "/etc/systemd/system", "/usr/local/libexec"];

/// What is to be repaired.
#[derive(Debug)]
pub struct Repairs<'a> {
    /// The drifts, those left out that stay as they are.
    pub drifts: Vec<&'a Drifted>,
    /// Whether nothing is left that could make the final checks fail.
    pub is_all: bool,
}

/// The plan; `None` when nothing is to be done. `base` is the plan that set Nix up.
///
/// # Errors
/// When the plan that ships is not right.
pub fn plan(base: &Plan, repairs: &Repairs<'_>, options: &Options) -> Result<Option<Plan>> {
    let wanted: Vec<_> = repairs
        .drifts
        .iter()
        .filter(|drifted| matches!(remedy(drifted, options).0, Cure::Repair | Cure::Choice))
        .collect();
    if wanted.is_empty() {
        return Ok(None);
    }
    let is_account = |drifted: &&&Drifted| {
        matches!(drifted.step.action, Action::CreateUser(_) | Action::CreateGroup(_) | Action::SubidLine(_))
    };
    // First the accounts, as nobody can say what else drifted without them; with them gone, nothing that ran can be started again by a
    // rollback, so nothing is stopped for one.
    let accounts = wanted.iter().any(|drifted| drifted.drift.path.is_relative() && is_account(drifted));
    let wanted: Vec<_> = wanted
        .into_iter()
        .filter(|drifted| !accounts || is_account(drifted) || drifted.drift.repair == Repair::Restart)
        .collect();
    let mut steps: Vec<Step> = Vec::new();
    for step in wanted.iter().filter_map(|drifted| step(drifted, options).ok()) {
        if steps.iter().any(|other| other.action == step.action) {
            continue;
        }
        let same = steps.iter().filter(|other| other.id.starts_with(&step.id)).count();
        let id = if same == 0 { step.id.clone() } else { format!("{}-again-{same}", step.id) };
        steps.push(Step { id, ..step });
    }
    let restart = accounts
        || wanted.iter().any(|drifted| {
            drifted.drift.repair == Repair::Restart
                || RELIED_ON.iter().any(|place| drifted.drift.path.starts_with(place))
        });
    let owner = owner(base).context("the run that set Nix up here names no owner of the store")?;
    let once = |name, wanted: bool| (name, wanted.then(|| Value::from(true)));
    let uids = owner.build_uids.iter().map(|uid| Value::from(i64::from(*uid))).collect();
    let number = |name, number: u64| (name, i64::try_from(number).ok().map(Value::from));
    let context = Context::from_options([
        ("nix_user", Some(owner.user.into())),
        ("nix_group", Some(owner.group.into())),
        ("build_uids", Some(Value::Array(uids))),
        number("drain_timeout", owner.drain_timeout),
        number("subid_start", owner.range.start.into()),
        number("subid_count", owner.range.count.into()),
        once("stop_first", restart && !accounts),
        once("restart", restart),
        once("start_units", restart && started_by(base).is_none()),
        ("start_program", started_by(base)),
        once("accounts", accounts),
        once("verify", repairs.is_all && !accounts),
    ]);
    Plan::repair(&context, steps).map(Some)
}

/// What serves during the checks, where no init system does.
fn started_by(base: &Plan) -> Option<Value> {
    base.steps.iter().find_map(|step| match &step.action {
        Action::Verify(verify) => {
            Some(Value::from(verify.started_by.as_ref()?.to_string_lossy().into_owned()))
        }
        _ => None,
    })
}

/// The step that puts this back; in words why there is none.
pub fn step(drifted: &Drifted, options: &Options) -> std::result::Result<Step, String> {
    let action = match &drifted.drift.repair {
        Repair::By(action) => (**action).clone(),
        Repair::Again => drifted.step.action.clone(),
        Repair::Restart | Repair::Never(_) | Repair::Notice(_) => {
            return Err("no step is needed for it".to_owned());
        }
    };
    let action = match action {
        Action::InstallProgram(mut program) => {
            program.source = source(&program.path, options)?;
            Action::InstallProgram(program)
        }
        other => other,
    };
    Ok(Step { action, ..drifted.step.clone() })
}

/// Where a program comes from: this program itself, and those beside it. Not from where it once came: somebody else may have put
/// something there since.
fn source(path: &std::path::Path, options: &Options) -> std::result::Result<PathBuf, String> {
    let name = path.file_name().unwrap_or_default();
    let source = match options.program.file_name() == Some(name) {
        true => options.program.clone(),
        false => options.helpers.join(name),
    };
    match source != path && source.is_file() {
        true => Ok(source),
        false => Err(format!(
            "unpack the release of nix-unroot into a directory, and run its own nix-unroot doctor --repair there: {} is to come from it",
            name.display()
        )),
    }
}
