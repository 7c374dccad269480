//! `verify`.

use anyhow::{Context, Result, bail};
use console::Style;

use super::exit::Exit;
use super::runs::{self, Ended};
use super::{Session, require_root};
use crate::facts::macos::Mac;
use crate::facts::{self, Facts, Flavour};
use crate::plan::{self, Options};
use crate::verify::{self, CheckResult, Report, Target};

pub fn verify(session: &Session) -> Result<Exit> {
    require_root("verifying")?;
    let options = session.options()?;
    let facts = facts::gather(&facts::Machine::live());
    if facts.flavour != Flavour::Unprivileged {
        bail!(
            "Nix is not run unprivileged by nix-unroot here, so there is nothing to verify: see nix-unroot inspect"
        );
    }
    let target = match &facts.mac {
        Some(mac) => of_mac(&facts, mac)?,
        None => of_linux(&facts, options)?,
    };
    let report = match prove(session, &target)? {
        Ok(report) => report,
        Err(ended) => return Ok(ended.exit),
    };
    session.output.document(&report)?;
    Ok(if report.passed { Exit::Done } else { Exit::Failed })
}

fn of_linux(facts: &Facts, mut options: Options) -> Result<Target> {
    // The unit knows better than an option whom the migration was for.
    if let Some(user) = facts.unit("nix-daemon-gate.service").and_then(|unit| unit.user.clone()) {
        options.nix_user = user;
    }
    let user = users::get_user_by_name(&options.nix_user)
        .with_context(|| format!("there is no user {:?}: name Nix's with --nix-user", options.nix_user))?;
    let range = plan::build_range(facts, &options).context("the user has no range in /etc/subuid")?;
    let mut target = Target::new(user.uid(), user.primary_group_id(), range);
    target.build_users_uids = facts.build_users.members.iter().map(|(_, uid)| *uid).collect();
    Ok(target)
}

/// The job knows whom the migration was for.
fn of_mac(facts: &Facts, mac: &Mac) -> Result<Target> {
    let name = mac.daemon().and_then(|job| job.user.clone()).unwrap_or_default();
    let user = facts.users.iter().find(|user| user.name == name);
    let user = user.with_context(|| format!("there is no user {name:?}, whom the daemon's job names"))?;
    let builds = plan::mac_build_uids(facts)?;
    let build_gid = facts.build_users.gid.context("there is no group of build users")?;
    Ok(Target::of_mac(user.uid, user.gid, build_gid, builds))
}

/// Removes what is left of checks that were killed, runs all, and tells of each; how the command ends when a run goes on, whose checks
/// are not to be disturbed.
///
/// # Errors
/// When the lock of runs cannot be taken.
pub fn prove(session: &Session, target: &Target) -> Result<std::result::Result<Report, Ended>> {
    let _lock = match runs::lock_of_runs(session)? {
        Ok(lock) => lock,
        Err(ended) => return Ok(Err(ended)),
    };
    if let Err(error) = verify::sweep(target) {
        session.output.message(&format!("something of an interrupted check may be left: {error:#}"));
    }
    Ok(Ok(verify::run(target, &mut |result| tell(session, result))))
}

fn tell(session: &Session, result: &CheckResult) {
    let word = match result.outcome.passed {
        true => Style::new().green().apply_to("ok    "),
        false => Style::new().red().bold().apply_to("FAILED"),
    };
    session.output.line(&format!("{word} {} [{}]: {}", result.title, result.key, result.outcome.seen));
    if let Some(remedy) = &result.outcome.remedy {
        session.output.line(&format!("       remedy: {remedy}"));
    }
}
