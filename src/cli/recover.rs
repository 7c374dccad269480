//! The commands `resume` and `rollback`.

use std::path::Path;

use anyhow::Result;

use super::args::{RollbackArgs, Status};
use super::exit::Exit;
use super::intention::Intention;
use super::machine::UNINSTALL;
use super::runs::{Ended, Runner, lock};
use super::undo::{self, Agreed, NOTHING_TO_RESUME, NOTHING_TO_UNDO, Which};
use super::{Session, remove, require_root};
use crate::journal::{self, Run, RunState};
use crate::platform::paths;

/// `resume`.
pub fn resume(session: &Session, status: Status) -> Result<Exit> {
    require_root("resuming a run")?;
    let on = |runner: &mut Runner| {
        // A removal that is in the journal knows by itself what it does.
        if !is_removal(runner)?
            && let Some(intention) = Intention::pending(&runner.journal)?
        {
            return remove::go_on(session, runner, intention);
        }
        let ended = undo::go_on(session, runner)?;
        if Intention::is_carried_out(&runner.journal)? {
            remove::forget()?;
        } else if !is_removal(runner)? && Intention::pending(&runner.journal)?.is_some() {
            session.output.message(remove::PENDING);
        }
        Ok(ended)
    };
    on_journal(session, NOTHING_TO_RESUME, on)?.finish(session, status)
}

/// `rollback`.
pub fn rollback(session: &Session, args: &RollbackArgs) -> Result<Exit> {
    require_root("rolling back")?;
    if args.from_copy
        && let Some(ended) = restore(session)?
    {
        return ended.finish(session, args.status);
    }
    let which = args.run.map_or(Which::Last, Which::Named);
    let back = |runner: &mut Runner| undo::roll_back(session, runner, which, args.keep, Agreed::NotYet);
    on_journal(session, NOTHING_TO_UNDO, back)?.finish(session, args.status)
}

/// Whether the run that can go on is a removal itself. One that ended (`--keep-store`) is what another one may begin from.
fn is_removal(runner: &Runner) -> Result<bool> {
    let goes_on = |run: Run| run.plan_name == UNINSTALL && run.state != RunState::Applied;
    Ok(runner.journal.current()?.is_some_and(goes_on))
}

/// Makes the journal anew from its copies; how the command ends when another run holds it.
fn restore(session: &Session) -> Result<Option<Ended>> {
    let _lock = match lock(session)? {
        Ok(lock) => lock,
        Err(ended) => return Ok(Some(ended)),
    };
    journal::restore_from_copies(Path::new(paths::JOURNAL))?;
    session.output.message("the journal is made anew from its copy; the damaged one is kept beside it");
    Ok(None)
}

/// Does something under the lock, where there is a journal; says `nothing` where there is none.
fn on_journal(
    session: &Session,
    nothing: &str,
    work: impl FnOnce(&mut Runner) -> Result<Ended>,
) -> Result<Ended> {
    if !journal::is_there(Path::new(paths::JOURNAL)) {
        session.output.message(nothing);
        return Ok(Ended::nothing());
    }
    match Runner::begin(session)? {
        Ok(mut runner) => work(&mut runner),
        Err(ended) => Ok(ended),
    }
}
