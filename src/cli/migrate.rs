//! `migrate`, and what `install` does in the same way: look, show, ask, look again, run.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::Serialize;

use super::args::MigrateArgs;
use super::exit::Exit;
use super::machine::{LockCheck, Survey};
use super::runs::{Ended, Runner};
use super::{Session, UsageError, install, require_root};
use crate::findings::Finding;
use crate::plan::{Options, Plan, Purpose, Step};
use crate::report::Document;

/// The document of `migrate --dry-run --json` and `install --dry-run --json`, and of either when it is blocked.
#[derive(JsonSchema, Serialize)]
pub struct Preview<'a> {
    /// Whether Nix runs unprivileged already, so that there is nothing to do.
    pub(super) migrated: bool,
    /// Whether a finding forbids it.
    pub(super) blocked: bool,
    /// Nothing is changed by what prints this.
    pub(super) changed: bool,
    /// Whether the plan would change something.
    pub(super) would_change: bool,
    /// What stands in the way, and what to know before.
    pub(super) findings: &'a [Finding],
    /// What would be done; null when nothing would.
    pub(super) plan: Option<&'a Plan>,
}

impl Document for Preview<'_> {
    const KIND: &'static str = "preview";
}

impl<'a> Preview<'a> {
    pub(super) fn of(survey: &'a Survey, plan: Option<&'a Plan>) -> Self {
        let migrated = survey.is_migrated();
        Self {
            migrated,
            blocked: !migrated && survey.is_blocked(),
            changed: false,
            would_change: plan.is_some(),
            findings: &survey.findings,
            plan,
        }
    }
}

pub fn migrate(session: &Session, args: &MigrateArgs) -> Result<Exit> {
    change(session, args, &install::migrate_options(session)?)
}

/// Makes the plan for the purpose that the options name, and runs it when it is agreed to.
pub fn change(session: &Session, args: &MigrateArgs, options: &Options) -> Result<Exit> {
    if args.dry_run {
        return dry_run(session, args, options);
    }
    let question = match options.purpose {
        Purpose::Migrate => {
            require_root("migrating")?;
            "Migrate this machine?"
        }
        Purpose::Install => {
            require_root("installing")?;
            "Install Nix on this machine?"
        }
    };
    let survey = Survey::take(options, LockCheck::Wanted)?;
    if survey.is_migrated() {
        session.output.message("nothing to do: Nix runs unprivileged here already");
        return Ended::nothing().finish(session, args.status);
    }
    session.output.tell_findings(&survey.findings);
    if survey.is_blocked() {
        return blocked(session, &survey);
    }
    let plan = chosen_plan(args, &survey, options)?;
    session.output.plan_in_short(&plan);
    if !session.confirm_plan(question, &plan)? {
        return Ended::declined(session).finish(session, args.status);
    }
    begin(session, args, options, &plan)
}

/// Takes the lock and looks once more: what was agreed to must still hold when the first step begins.
fn begin(session: &Session, args: &MigrateArgs, options: &Options, plan: &Plan) -> Result<Exit> {
    let mut runner = match Runner::begin(session)? {
        Ok(runner) => runner,
        Err(ended) => return ended.finish(session, args.status),
    };
    let survey = Survey::take(options, LockCheck::HeldByUs)?;
    if survey.is_blocked() {
        session.output.tell_findings(&survey.findings);
        return blocked(session, &survey);
    }
    if survey.is_migrated() || survey.plan(options)? != *plan {
        bail!(
            "the machine changed while the plan was read, and nothing was done: run the same command again"
        );
    }
    runner.apply(session, plan, args.keep_partial)?.finish(session, args.status)
}

fn blocked(session: &Session, survey: &Survey) -> Result<Exit> {
    session.output.message("blocked: nothing was changed");
    session.output.document(&Preview::of(survey, None))?;
    Ok(Exit::Blocked)
}

fn dry_run(session: &Session, args: &MigrateArgs, options: &Options) -> Result<Exit> {
    let survey = Survey::take(options, LockCheck::Wanted)?;
    let migrated = survey.is_migrated();
    let blocked = !migrated && survey.is_blocked();
    let plan = if migrated || blocked { None } else { Some(chosen_plan(args, &survey, options)?) };
    let report = survey.report(plan.as_ref());
    session.output.overview(&report.overview);
    session.output.findings(&survey.findings);
    match &plan {
        Some(plan) => session.output.plan(plan),
        None if migrated => session.output.line("nothing to do: Nix runs unprivileged here already"),
        None => session.output.line("blocked: there is no plan until the blockers are gone"),
    }
    session.page(args.html.as_deref(), &report)?;
    session.output.document(&Preview::of(&survey, plan.as_ref()))?;
    Ok(match plan {
        _ if blocked => Exit::Blocked,
        Some(_) if args.status.exit_code => Exit::Changes,
        _ => Exit::Done,
    })
}

/// The plan made now, or the one that was given, if it still fits.
fn chosen_plan(args: &MigrateArgs, survey: &Survey, options: &Options) -> Result<Plan> {
    let Some(path) = &args.plan else { return survey.plan(options) };
    let plan = read_plan(path).map_err(|error| UsageError(format!("{error:#}")))?;
    // Root does what a plan says, and the file may be somebody else's: only the very plan that would be made now will do.
    let made = survey.plan(options)?;
    if plan == made {
        return Ok(made);
    }
    let differs = |(given, made): &(&Step, &Step)| given != made;
    let step = plan
        .steps
        .iter()
        .zip(&made.steps)
        .find(differs)
        .map_or("its head or its number of steps", |(step, _)| &step.id);
    let text = format!(
        "the plan {} is not the one that this machine and these options give now (it differs in {step}): make it anew with \
         nix-unroot plan",
        path.display()
    );
    Err(UsageError(text).into())
}

fn read_plan(path: &Path) -> Result<Plan> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read the plan {}", path.display()))?;
    Plan::read(&text).with_context(|| format!("cannot use the plan {}", path.display()))
}
