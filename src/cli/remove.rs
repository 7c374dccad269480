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
            let on =
                rolled_back.as_ref().map_or("nix-unroot uninstall", |_| "nix-unroot resume, which goes on");
            let text = format!("{}{}; then run {on}", so_far(&rolled_back), blocked.join("; "));
            return Ok(Ended::refused(session, &anyhow!(text)));
        }
        if survey.first.is_none() {
            let plan = survey.plan(session, args)?;
            return match rolled_back {
                Some(ended) if survey.remains.is_empty() => {
                    Intention::forget()?;
                    session.output.message("done: Nix is removed");
                    Ok(ended)
                }
                None if shown.is_some_and(|shown| plan != *shown) => {
                    bail!("something changed while the question stood: run nix-unroot uninstall again")
                }
                _ => runner.apply(session, &plan, false),
            };
        }
        Intention { keep_store: args.keep_store, purge_homes: args.purge_homes }.keep()?;
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
            bail!("{}stopped by a signal: nix-unroot resume goes on", so_far(&rolled_back));
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
