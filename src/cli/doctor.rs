//! `doctor`.

use anyhow::{Context, Result, bail};
use console::Style;
use schemars::JsonSchema;
use serde::Serialize;

use super::args::DoctorArgs;
use super::conflicts::{self, Words};
use super::exit::Exit;
use super::runs::{Ended, Runner};
use super::{Session, require_root, verify};
use crate::actions::conflict::{Conflict, Keep};
use crate::doctor::{self, Cure, Entry, Repairs};
use crate::engine::Drifted;
use crate::journal::Run;
use crate::plan::{Options, Plan};
use crate::report::Document;
use crate::system::text::printable;
use crate::verify::Report;

/// The document of `doctor --json`: what is not any more as the runs in effect left it.
#[derive(JsonSchema, Serialize)]
pub struct Examination {
    /// Whether nothing drifted and every check passed.
    sound: bool,
    /// The runs in effect.
    runs: Vec<Run>,
    /// What drifted, in the order of the steps.
    drifts: Vec<Entry>,
    /// What `verify` says; null when the user that owns the store is not there.
    verify: Option<Report>,
}

impl Document for Examination {
    const KIND: &'static str = "doctor";
}

/// What the journal and the machine say.
struct Look {
    runs: Vec<(Run, Plan)>,
    drifts: Vec<Drifted>,
}

impl Look {
    fn base(&self) -> Result<&Plan> {
        let base = doctor::base(&self.runs).context(
            "Nix was not set up by nix-unroot here, or is not any more, so there is nothing to compare with: see nix-unroot inspect",
        )?;
        Ok(&base.1)
    }

    /// Those that need somebody to choose.
    fn conflicts(&self, options: &Options) -> Vec<Conflict> {
        let entries = doctor::entries(&self.drifts, options);
        entries
            .into_iter()
            .filter(|entry| entry.cure == Cure::Choice)
            .filter_map(|entry| entry.conflict)
            .collect()
    }

    /// What is to be repaired when these stay as they are.
    fn repairs(&self, theirs: &[Conflict], options: &Options) -> Repairs<'_> {
        let stays = |drifted: &Drifted| {
            drifted.drift.conflict.as_ref().is_some_and(|conflict| theirs.contains(conflict))
        };
        let entries = doctor::entries(&self.drifts, options);
        let is_all = theirs.is_empty() && entries.iter().all(|entry| entry.cure != Cure::ByHand);
        Repairs { drifts: self.drifts.iter().filter(|drifted| !stays(drifted)).collect(), is_all }
    }
}

pub fn doctor(session: &Session, args: &DoctorArgs) -> Result<Exit> {
    require_root("comparing this machine with the journal")?;
    // Helpers that are not there are no obstacle to looking.
    let options = session.plan_options().or_else(|_| session.options())?;
    let look = match Runner::look_at_drift(session)? {
        Ok((runs, drifts)) => Look { runs, drifts },
        Err(ended) => return ended.finish(session, args.status),
    };
    let base = look.base()?;
    if args.repair {
        return repair(session, args, &look, &options);
    }
    let drifts = doctor::entries(&look.drifts, &options);
    tell(session, &look, &drifts);
    let verify = match doctor::target(base).map(|target| verify::prove(session, &target)).transpose()? {
        None => None,
        Some(Ok(report)) => Some(report),
        Some(Err(ended)) => return ended.finish(session, args.status),
    };
    let sound = drifts.iter().all(|entry| entry.cure == Cure::Notice)
        && verify.as_ref().is_some_and(|report| report.passed);
    if verify.is_none() {
        session.output.line("not verified: the user that owns the store is not there");
    }
    let runs = look.runs.into_iter().map(|(run, _)| run).collect();
    session.output.document(&Examination { sound, runs, drifts, verify })?;
    Ok(if sound { Exit::Done } else { Exit::Failed })
}

fn tell(session: &Session, look: &Look, drifts: &[Entry]) {
    let line = |text: &str| session.output.line(text);
    for (run, _) in &look.runs {
        line(&format!(
            "run {} ({}, begun {} UTC by nix-unroot {}) is in effect",
            run.id, run.plan_name, run.started, run.tool_version
        ));
        if run.tool_version != env!("CARGO_PKG_VERSION") {
            line(&format!("    this is nix-unroot {}", env!("CARGO_PKG_VERSION")));
        }
    }
    for entry in drifts {
        let (word, style) = match entry.cure {
            Cure::Notice => ("notice", Style::new().cyan()),
            Cure::Choice => ("conflict", Style::new().yellow().bold()),
            Cure::Repair => ("drift", Style::new().yellow()),
            Cure::ByHand => ("drift", Style::new().red().bold()),
        };
        let what = printable(&entry.what.display().to_string());
        line(&format!("{} {what}: {}", style.apply_to(format!("{word}:")), printable(&entry.found)));
        let package = entry.package.as_ref().map(|package| format!("it belongs to the package {package}"));
        let changed = entry.changed.map(|changed| format!("changed {}", doctor::ago(changed)));
        let who: Vec<_> = changed.into_iter().chain(package).collect();
        if !who.is_empty() {
            line(&format!("    since: {}", who.join("; ")));
        }
        line(&format!("    it was there because: {}", entry.breaks));
        line(&format!("    remedy: {}", printable(&entry.remedy)));
    }
    let counted = drifts.iter().filter(|entry| entry.cure != Cure::Notice).count();
    line(&match counted {
        0 => "nothing drifted: all is as nix-unroot left it".to_owned(),
        1 => "1 thing drifted".to_owned(),
        _ => format!("{counted} things drifted"),
    });
}

fn repair(session: &Session, args: &DoctorArgs, look: &Look, options: &Options) -> Result<Exit> {
    let status = args.status;
    let found = look.conflicts(options);
    let chosen = match args.dry_run {
        true => {
            // Shown as they would be repaired; the run itself asks.
            found.iter().map(|conflict| (conflict.clone(), Keep::Ours)).collect()
        }
        false => match conflicts::choose(session, &found, args.keep, Words::REPAIR)? {
            Some(chosen) => chosen,
            None => return Ended::undecided(None, found).finish(session, status),
        },
    };
    let theirs: Vec<_> =
        chosen.into_iter().filter(|(_, keep)| *keep == Keep::Theirs).map(|(conflict, _)| conflict).collect();
    let make = |look: &Look| doctor::plan(look.base()?, &look.repairs(&theirs, options), options);
    let by_hand = doctor::entries(&look.drifts, options);
    for entry in by_hand.iter().filter(|entry| entry.cure == Cure::ByHand) {
        session.output.message(&format!(
            "not repaired: {}: {}; {}",
            printable(&entry.what.display().to_string()),
            printable(&entry.found),
            printable(&entry.remedy)
        ));
    }
    let Some(plan) = make(look)? else {
        session.output.message("nothing to do: nothing drifted that can be repaired");
        return Ended::nothing().finish(session, status);
    };
    if args.dry_run {
        session.output.plan(&plan);
        session.output.document(&plan)?;
        return Ok(if status.exit_code { Exit::Changes } else { Exit::Done });
    }
    session.output.tell_plan(&plan);
    if !session.confirm("Put these back?")? {
        return Ended::declined(session).finish(session, status);
    }
    let mut runner = match Runner::begin(session)? {
        Ok(runner) => runner,
        Err(ended) => return ended.finish(session, status),
    };
    // What was agreed to must still hold under the lock.
    let (runs, drifts) = runner.drifts(session)?;
    if make(&Look { runs, drifts })?.as_ref() != Some(&plan) {
        bail!(
            "the machine changed while the plan was read, and nothing was done: run the same command again"
        );
    }
    let ended = runner.apply(session, &plan, false)?;
    if ended.exit == Exit::Done {
        session.output.message("run nix-unroot doctor again: it looks at all of it once more");
    }
    ended.finish(session, status)
}
