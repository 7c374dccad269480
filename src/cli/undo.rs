//! Going on with a run, or back from it, under the lock.

use std::path::Path;

use anyhow::{Result, bail};

use super::args::Whose;
use super::conflicts::{self, Words};
use super::intention::Intention;
use super::runs::{Ended, Runner};
use super::{Session, UsageError, volumes};
use crate::actions::conflict::{Conflict, Keep};
use crate::engine::{Ending, Engine};
use crate::journal::{Journal, Run, RunState};
use crate::platform::paths;

/// What is said when there is no run to go on with.
pub const NOTHING_TO_RESUME: &str = "there is no interrupted run: nothing to do";
/// What is said when there is no run to go back from.
pub const NOTHING_TO_UNDO: &str = "there is no run to roll back: nothing to do";
/// The name of the plan that made `/nix`.
const INSTALL: &str = "install";

/// Whether somebody said yes already.
#[derive(Clone, Copy)]
pub enum Agreed {
    /// Nobody.
    NotYet,
    /// To the removal that the rollback is a part of.
    ToRemove(Intention),
}

/// Which run a command is about.
#[derive(Clone, Copy)]
pub enum Which {
    /// The last that can go on or back.
    Current,
    /// The same, unless a run that came later is undone already: then the command may be the repetition of one that died when all was
    /// done, and the run before it is not what it was about.
    Last,
    /// The one of this number.
    Named(i64),
}

/// What a command does with the run that it is about.
struct Work<'a> {
    which: Which,
    /// What is said when there is no such run.
    nothing: &'a str,
    /// What is asked before; none when there is nothing to do.
    question: &'a dyn Fn(&Run) -> Option<String>,
    agreed: Agreed,
    /// Finds out about conflicts, for a command that goes back.
    choose: Option<&'a Choose<'a>>,
    go: &'a dyn Fn(&mut Engine<'_>, &Run) -> Result<Ending>,
}

/// Finds out whose version stays of each conflict; `None` when nobody says.
type Choose<'a> = dyn Fn(&[Conflict]) -> Result<Option<Vec<(Conflict, Keep)>>> + 'a;

/// Goes on with the run that was interrupted, in the direction that it had.
///
/// # Errors
/// When the journal cannot be read, or nobody can be asked.
pub fn go_on(session: &Session, runner: &mut Runner) -> Result<Ended> {
    let question = |run: &Run| {
        let named = format!("run {} ({}, begun {})", run.id, run.plan_name, run.started);
        match run.state {
            RunState::Applied | RunState::Undone | RunState::Final => None,
            RunState::Undoing => Some(format!("Go on undoing {named}?")),
            RunState::Applying => Some(format!("Go on with {named}?")),
        }
    };
    let work = Work {
        which: Which::Current,
        nothing: NOTHING_TO_RESUME,
        question: &question,
        agreed: Agreed::NotYet,
        choose: None,
        go: &|engine, run| engine.resume(run),
    };
    work.done(session, runner)
}

/// Undoes a run.
///
/// # Errors
/// When the journal cannot be read, nobody can be asked, or the run that is named cannot be undone now.
pub fn roll_back(
    session: &Session,
    runner: &mut Runner,
    which: Which,
    keep: Option<Whose>,
    agreed: Agreed,
) -> Result<Ended> {
    let question = |run: &Run| {
        let what = if run.plan_name == INSTALL && run.state == RunState::Applied {
            session.output.message(
                "this removes Nix and its whole store with all that was built since, for every user of this machine",
            );
            "Delete /nix, and give back"
        } else {
            "Give back"
        };
        Some(format!("{what} the state before run {} ({}, begun {})?", run.id, run.plan_name, run.started))
    };
    let work = Work {
        which,
        nothing: NOTHING_TO_UNDO,
        question: &question,
        agreed,
        choose: Some(&|found| conflicts::choose(session, found, keep, Words::ROLLBACK)),
        go: &|engine, run| engine.roll_back(run),
    };
    work.done(session, runner)
}

impl Work<'_> {
    fn done(&self, session: &Session, runner: &mut Runner) -> Result<Ended> {
        let found = match self.which.find(session, &runner.journal)? {
            Ok(found) => found,
            Err(ended) => return Ok(ended),
        };
        let Some((run, question)) =
            found.and_then(|run| (self.question)(&run).map(|question| (run, question)))
        else {
            self.give_up_removal()?;
            session.output.message(self.nothing);
            return Ok(Ended::nothing());
        };
        // Also before anybody is asked about what others changed: what is not mounted looks as if it were gone.
        // Who removes Nix does not need it back.
        if let Some(lost) = volumes::missing(&run, matches!(self.agreed, Agreed::ToRemove(_)))? {
            if self.choose.is_none() && run.state == RunState::Applying {
                bail!("{}: nix-unroot rollback undoes the run without it", lost.is_not_there());
            }
            session.output.message(&lost.passed_over());
            runner.lost = Some(lost.mount_point);
        }
        let mut chosen = Vec::new();
        if let Some(choose) = self.choose {
            let found = runner.look(session, &run)?;
            match choose(&found)? {
                Some(all) => chosen = all,
                None => return Ok(Ended::undecided(Some(run.id), found)),
            }
        }
        match self.agreed {
            Agreed::NotYet if !session.confirm(&question)? => return Ok(Ended::declined(session)),
            Agreed::NotYet => self.give_up_removal()?,
            // What is removed may be what a full disk waits for.
            Agreed::ToRemove(intention) => runner.journal.with_room(|| intention.keep())?,
        }
        session.output.log.belongs_to(Path::new(paths::JOURNAL), run.id, false);
        runner.drive(session, run.id, false, |engine| {
            engine.choose(&run, &chosen)?;
            (self.go)(engine, &run)
        })
    }
}

impl Work<'_> {
    /// Who asks for the state before does not want it removed any more.
    fn give_up_removal(&self) -> Result<()> {
        match (self.choose, self.agreed) {
            (Some(_), Agreed::NotYet) => Intention::forget(),
            _ => Ok(()),
        }
    }
}

impl Which {
    /// The run, if there is one to do anything about; how the command ends when that cannot be said.
    fn find(self, session: &Session, journal: &Journal) -> Result<std::result::Result<Option<Run>, Ended>> {
        let current = journal.current()?;
        match self {
            Self::Current => Ok(Ok(current)),
            Self::Last => Ok(match (journal.runs()?.pop(), current) {
                (Some(last), Some(run)) if last.state == RunState::Undone => {
                    let text = format!(
                        "run {} ({}) is undone already, and run {} ({}) is in effect: nix-unroot rollback {2} undoes that, too",
                        last.id, last.plan_name, run.id, run.plan_name
                    );
                    session.output.message(&text);
                    // Who is asked has read it.
                    if session.settings.yes || !session.output.can_ask() {
                        return Ok(Err(Ended::unnamed(run.id)));
                    }
                    Ok(Some(run))
                }
                (_, current) => Ok(current),
            }),
            Self::Named(number) => named(journal, number, current).map(Ok),
        }
    }
}

/// The run of this number, when it is the one to be undone next; none when it is undone already.
fn named(journal: &Journal, number: i64, current: Option<Run>) -> Result<Option<Run>> {
    let named = journal.runs()?.into_iter().find(|run| run.id == number);
    let why = match (named.map(|run| run.state), current) {
        (Some(RunState::Undone), _) => return Ok(None),
        (_, Some(current)) if current.id == number => return Ok(Some(current)),
        (Some(RunState::Final), _) => format!("run {number} cannot be undone any more"),
        (Some(_), Some(later)) => {
            let Run { id, plan_name, .. } = later;
            format!(
                "run {id} ({plan_name}) came after run {number}: nix-unroot rollback {id} undoes that first"
            )
        }
        (None, _) | (Some(_), None) => {
            format!("there is no run {number} that can be undone: nix-unroot history lists all runs")
        }
    };
    Err(UsageError(why).into())
}
