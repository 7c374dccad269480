//! `inspect` and `plan`.

use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;

use super::Session;
use super::args::{InspectArgs, PlanFormat};
use super::exit::Exit;
use super::install;
use super::machine::{LockCheck, Survey};
use super::migrate::Preview;
use crate::facts::{Facts, Flavour};
use crate::findings::Finding;
use crate::report::{self, Document};

/// The document of `inspect --json`: what is on a machine, and what follows from that.
#[derive(JsonSchema, Serialize)]
pub struct Inspection<'a> {
    /// What was seen.
    pub(super) facts: &'a Facts,
    /// What stands in the way of a migration, and what to know before one.
    pub(super) findings: &'a [Finding],
}

impl Document for Inspection<'_> {
    const KIND: &'static str = "inspect";
}

pub fn inspect(session: &Session, args: &InspectArgs) -> Result<Exit> {
    let options = session.options()?;
    let survey = Survey::take(&options, LockCheck::Wanted)?;
    let Survey { facts, findings, .. } = &survey;
    // A plan is told where one can be made; what keeps it from that is a finding.
    let may = !survey.is_migrated() && !survey.is_blocked();
    let plan = if may { survey.plan(&options).ok() } else { None };
    let report = survey.report(plan.as_ref());
    session.output.overview(&report.overview);
    session.output.findings(findings);
    if let Some(plan) = &plan {
        session.output.plan_in_short(plan);
    }
    session.output.machine(facts);
    session.page(args.html.as_deref(), &report)?;
    session.output.document(&Inspection { facts, findings })?;
    Ok(Exit::Done)
}

pub fn plan(session: &Session, format: PlanFormat) -> Result<Exit> {
    let mut options = install::migrate_options(session)?;
    let mut survey = Survey::take(&options, LockCheck::Wanted)?;
    if survey.facts.flavour == Flavour::None {
        options = install::options(session)?;
        survey = Survey::take(&options, LockCheck::Wanted)?;
    }
    if survey.is_migrated() {
        session.output.message("this machine is migrated already: there is nothing to plan");
        session.output.document(&Preview::of(&survey, None))?;
        return Ok(Exit::Done);
    }
    if survey.is_blocked() {
        session
            .output
            .message("blocked: there is no plan until the blockers are gone; nix-unroot inspect shows them");
        session.output.document(&Preview::of(&survey, None))?;
        return Ok(Exit::Blocked);
    }
    let plan = survey.plan(&options)?;
    let text = match format {
        PlanFormat::Json => report::to_json(&plan)?,
        PlanFormat::Toml if session.output.json => report::to_json(&plan)?,
        PlanFormat::Toml => plan.to_toml()?,
    };
    session.output.raw(&text)?;
    Ok(Exit::Done)
}
