//! A removal that was agreed to: what this tool did is undone as it was recorded, and then the rest goes.
//!
//! Those are several runs. Between them nothing is interrupted as far as the journal knows, so what was asked for lies beside it until
//! the last of them has begun: `resume` goes on with it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::Session;
use super::args::{Status, UninstallArgs};
use super::exit::Exit;
use super::runs::{Ended, Runner};
use super::undo::{self, Agreed, Which};
use super::uninstall::Survey;
use crate::plan::Plan;
use crate::platform::paths;
use crate::system::files::{self, Ownership};

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Intention {
    keep_store: bool,
    purge_homes: bool,
}

impl Intention {
    /// The one that nobody has carried out yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn find() -> Result<Option<Self>> {
        let path = path();
        match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => serde_json::from_slice(&read.with_context(|| format!("cannot read {}", path.display()))?)
                .map(Some)
                .with_context(|| {
                    format!(
                        "{} is damaged: remove it; nix-unroot uninstall begins anew what it stood for",
                        path.display()
                    )
                }),
        }
    }

    /// Nobody intends to any more, or the run that is left knows by itself.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget() -> Result<()> {
        let path = path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done
                .and_then(|()| files::sync_parent(&path))
                .with_context(|| format!("cannot remove {}", path.display())),
        }
    }

    fn keep(self) -> Result<()> {
        let (path, text) = (path(), serde_json::to_vec(&self)?);
        files::replace(&path, &text, Ownership::root(0o600))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn arguments(self) -> UninstallArgs {
        let Self { keep_store, purge_homes } = self;
        UninstallArgs { dry_run: false, keep_store, purge_homes, status: Status::default() }
    }
}

/// Where this program stays while what it undoes takes its place in [`paths::PROGRAM`] away.
fn kept_program() -> PathBuf {
    Path::new(paths::STATE_DIR).join("nix-unroot")
}

/// The program that is there to go on with.
fn program() -> String {
    match (Path::new(paths::PROGRAM).exists(), kept_program()) {
        (false, kept) if kept.exists() => kept.display().to_string(),
        _ => "nix-unroot".to_owned(),
    }
}

/// Keeps this program where it was installed by a run that is about to be undone. A link, where that can be: a disk may be full.
fn keep_program(session: &Session) {
    let (from, to) = (Path::new(paths::PROGRAM), kept_program());
    if to.exists() || !std::env::current_exe().is_ok_and(|own| own == from) {
        return;
    }
    let copy = || files::replace(&to, &fs::read(from)?, Ownership::root(0o700));
    if let Err(error) = fs::hard_link(from, &to).and_then(|()| files::sync_parent(&to)).or_else(|_| copy()) {
        let (from, to) = (from.display(), to.display());
        session.output.message(&format!("{from} goes before Nix does, and cannot be kept as {to}: {error}"));
    }
}

/// Nothing is left to go on with.
pub fn forget_program() {
    // A program that stays costs room and nothing else.
    let _ = fs::remove_file(kept_program());
}

fn path() -> PathBuf {
    Path::new(paths::STATE_DIR).join("removal.json")
}

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
    if !session.confirm("Go on removing Nix from this machine?")? {
        return Ok(Ended::declined(session));
    }
    under(session, runner, &intention.arguments(), None)
}

/// Looks once more, under the lock, and does it.
fn under(
    session: &Session,
    runner: &mut Runner,
    args: &UninstallArgs,
    shown: Option<&Plan>,
) -> Result<Ended> {
    let mut rolled_back = None;
    loop {
        let survey = Survey::under(&runner.journal)?;
        let blocked = survey.blockers(session, args);
        if !blocked.is_empty() {
            let on = rolled_back.as_ref().map_or("nix-unroot uninstall".to_owned(), |_| {
                format!("{} resume, which goes on", program())
            });
            let text = format!("{}{}; then run {on}", so_far(&rolled_back), blocked.join("; "));
            return Ok(Ended::refused(session, &anyhow!(text)));
        }
        if survey.first.is_none() {
            let plan = survey.plan(session, args)?;
            return match rolled_back {
                Some(ended) if survey.remains.is_empty() => {
                    Intention::forget()?;
                    forget_program();
                    session.output.message("done: Nix is removed");
                    Ok(ended)
                }
                None if shown.is_some_and(|shown| plan != *shown) => {
                    bail!("something changed while the question stood: run nix-unroot uninstall again")
                }
                _ => {
                    let ended = runner.apply(session, &plan, false)?;
                    if ended.exit == Exit::Done {
                        forget_program();
                    }
                    Ok(ended)
                }
            };
        }
        keep_program(session);
        let intention = Intention { keep_store: args.keep_store, purge_homes: args.purge_homes };
        // What is removed may be what a full disk waits for.
        runner.journal.with_room(|| intention.keep())?;
        // An audit's fixes went on top of a migration, so there may be several.
        let ended = undo::roll_back(session, runner, Which::Current, None, Agreed::Already)?;
        if ended.exit != Exit::Done {
            if ended.exit == Exit::Blocked {
                let text = "nix-unroot rollback --keep theirs (or ours) decides; then run nix-unroot uninstall again";
                session.output.message(&format!("{}{text}", so_far(&rolled_back)));
                // That begins anew.
                Intention::forget()?;
            }
            return Ok(ended);
        }
        rolled_back = Some(ended);
        if session.signals()?.load(Ordering::Relaxed) {
            bail!("{}stopped by a signal: {} resume goes on", so_far(&rolled_back), program());
        }
    }
}

/// What an error between two runs has to say first.
fn so_far(rolled_back: &Option<Ended>) -> &'static str {
    match rolled_back {
        Some(_) => "what nix-unroot had done is undone, and nothing is removed yet: ",
        None => "",
    }
}
