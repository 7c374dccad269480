//! A removal that was agreed to: what this tool did is undone as it was recorded, and then the rest goes.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result, anyhow, bail};

use super::args::UninstallArgs;
use super::exit::Exit;
use super::intention::Intention;
use super::runs::{Ended, Runner};
use super::undo::{self, Agreed, Which};
use super::uninstall::Survey;
use super::{Session, kept_program};
use crate::plan::Plan;

/// Removes Nix, after `shown` was agreed to.
///
/// # Errors
/// When nothing more can be found out, or something changed meanwhile.
pub fn remove(session: &Session, args: &UninstallArgs, shown: &Plan) -> Result<Ended> {
    match Runner::begin(session)? {
        Ok(mut runner) => under(session, &mut runner, args, Some(shown)),
        Err(ended) => Ok(ended),
    }
}

/// Goes on with a removal that died between its runs, or while it rolled one back.
///
/// # Errors
/// As [`remove`].
pub fn go_on(session: &Session, runner: &mut Runner, intention: Intention) -> Result<Ended> {
    let question = format!("Go on with {}, and remove Nix from this machine?", intention.command());
    if !session.confirm(&question)? {
        return Ok(Ended::declined(session));
    }
    under(session, runner, &intention.arguments(), None)
}

/// Looks once more, under the lock, and does it. Nothing was `shown` where it is gone on with.
fn under(
    session: &Session,
    runner: &mut Runner,
    args: &UninstallArgs,
    shown: Option<&Plan>,
) -> Result<Ended> {
    let intention = Intention::of(args, &runner.journal)?;
    let mut rolled_back = None;
    // From here on one that asks to stop is heard.
    session.signals()?;
    loop {
        let survey = Survey::under(&runner.journal).context(so_far(&rolled_back))?;
        if let Some(text) = survey.unfinished {
            return Ok(Ended::refused(session, &anyhow!(text)));
        }
        let blocked = survey.blockers(session, args);
        if !blocked.is_empty() {
            let on = match (&rolled_back, shown) {
                (None, Some(_)) => intention.command(),
                _ => "nix-unroot resume, which goes on".to_owned(),
            };
            let text = format!("{}: {}; then run {on}", so_far(&rolled_back), blocked.join("; "));
            return Ok(Ended::refused(session, &anyhow!(text)));
        }
        let Some(first) = &survey.first else {
            let plan = survey.plan(session, args)?;
            return match rolled_back {
                Some(ended) if !survey.leaves_anything_to(args) => {
                    forget()?;
                    session.output.message("done: Nix is removed");
                    Ok(ended)
                }
                None if shown.is_some_and(|shown| plan != *shown) => {
                    bail!("something changed while the question stood: run {} again", intention.command())
                }
                _ => last_run(session, runner, &plan, intention),
            };
        };
        kept_program::keep(session);
        // An audit's fixes went on top of a migration, so there may be several.
        let ended = undo::roll_back(session, runner, Which::Current, None, Agreed::ToRemove(intention))?;
        if ended.exit == Exit::Blocked {
            session.output.message(&format!(
                "{}: nix-unroot rollback {} --keep theirs (or ours) decides; then run {} again",
                so_far(&rolled_back),
                first.id,
                intention.command()
            ));
            // That begins anew.
            Intention::forget()?;
        }
        if ended.exit != Exit::Done {
            return Ok(ended);
        }
        rolled_back = Some(ended);
        if session.signals()?.load(Ordering::Relaxed) {
            bail!("{}, stopped by a signal: nix-unroot resume goes on", so_far(&rolled_back));
        }
    }
}

/// Removes what is left when all that this tool did is undone.
fn last_run(session: &Session, runner: &mut Runner, plan: &Plan, intention: Intention) -> Result<Ended> {
    let is_pending = Intention::pending(&runner.journal)?.is_some();
    if is_pending {
        // It may have been asked for anew, in other words.
        runner.journal.with_room(|| intention.keep())?;
    }
    let ended = runner.apply(session, plan, false).map_err(|error| match is_pending {
        true => error.context(PENDING),
        false => error,
    })?;
    match ended.exit {
        Exit::Done => forget()?,
        Exit::Failed if is_pending => session.output.message(PENDING),
        _ => {}
    }
    Ok(ended)
}

/// What is said when the last run is undone, and the removal still wanted.
pub const PENDING: &str =
    "Nix is not removed: when what failed is out of the way, nix-unroot resume goes on with that";

/// It is done, and nothing is left to go on with.
///
/// # Errors
/// When what was asked for cannot be forgotten.
pub fn forget() -> Result<()> {
    Intention::forget()?;
    kept_program::forget();
    Ok(())
}

/// What an error has to say first.
fn so_far(rolled_back: &Option<Ended>) -> &'static str {
    match rolled_back {
        Some(_) => "nothing of Nix is removed yet, and what nix-unroot undid so far stays undone",
        None => "nothing of Nix is removed yet",
    }
}
