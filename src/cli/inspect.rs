//! `inspect` and `plan`.

use anyhow::Result;
use serde::Serialize;

use super::Session;
use super::args::PlanFormat;
use super::exit::Exit;
use super::machine::{LockCheck, Survey};
use super::{install, table};
use crate::facts::{Facts, Flavour};
use crate::findings::Finding;

/// Version of the document of `inspect --json`; fields may be added without a new one.
const DOCUMENT_VERSION: u32 = 1;

/// The document of `inspect --json`.
#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    facts: &'a Facts,
    findings: &'a [Finding],
}

pub fn inspect(session: &Session) -> Result<Exit> {
    let survey = Survey::take(&session.options()?, LockCheck::Wanted)?;
    let Survey { facts, findings, .. } = &survey;
    for line in table::facts(facts) {
        session.output.line(&line);
    }
    session.output.findings(findings);
    session.output.document(&Document { version: DOCUMENT_VERSION, facts, findings })?;
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
        return Ok(Exit::Done);
    }
    if survey.is_blocked() {
        session
            .output
            .message("blocked: there is no plan until the blockers are gone; nix-unroot inspect shows them");
        return Ok(Exit::Blocked);
    }
    let plan = survey.plan(&options)?;
    let text = match format {
        _ if session.output.json => plan.to_json()?,
        PlanFormat::Json => plan.to_json()?,
        PlanFormat::Toml => plan.to_toml()?,
    };
    session.output.raw(&text)?;
    Ok(Exit::Done)
}
