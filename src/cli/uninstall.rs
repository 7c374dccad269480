//! `uninstall`.

use std::path::Path;

use anyhow::{Result, anyhow};
use schemars::JsonSchema;
use serde::Serialize;

use super::args::UninstallArgs;
use super::brought::Brought;
use super::exit::Exit;
use super::log::Event;
use super::machine::{UNINSTALL, unfinished};
use super::runs::{Ended, lock_of_runs};
use super::volumes::{self, Lost};
use super::{Session, remove, require_root};
use crate::actions::Action;
use crate::engine;
use crate::facts::{self, Facts, Flavour, Machine};
use crate::journal::{Journal, Run};
use crate::plan::{Plan, Uninstall};
use crate::platform::paths;
use crate::remains::{Holder, Remains, holders, users_of_the_volume};
use crate::report::Document;
use crate::system::text;

/// The document of `uninstall --dry-run --json`, and of a removal that is blocked.
#[derive(JsonSchema, Serialize)]
pub struct Removal<'a> {
    /// Nothing is changed by what prints this.
    changed: bool,
    /// Whether the plan would change something.
    would_change: bool,
    /// The run that is rolled back first.
    rolls_back: Option<i64>,
    /// Why nothing can be removed now.
    blocked: &'a [String],
    /// What would be done.
    plan: Option<&'a Plan>,
    /// What will be left, and why.
    stays: &'a [String],
}

impl Document for Removal<'_> {
    const KIND: &'static str = "uninstall-preview";
}

/// What a removal begins from.
pub struct Survey {
    facts: Facts,
    pub remains: Remains,
    /// A run of this tool that is rolled back first: what it did is known best from its journal.
    pub first: Option<Run>,
    /// What there is to say of a removal that stands half done: it is not asked for in other words.
    pub unfinished: Option<String>,
    /// A volume that such a run worked on, and that is gone.
    lost: Option<Lost>,
    /// A run whose undoing would take something out of the store.
    brought: Option<Brought>,
    /// Uids of which the rollback ends every process.
    ending: Vec<u32>,
}

/// `uninstall`.
pub fn uninstall(session: &Session, args: &UninstallArgs) -> Result<Exit> {
    if !args.dry_run {
        require_root("removing Nix")?;
    }
    let survey = Survey::take()?;
    if let (false, Some(text)) = (args.dry_run, &survey.unfinished) {
        return Ended::refused(session, &anyhow!(text.clone())).finish(session, args.status);
    }
    if survey.first.is_none() && !survey.leaves_anything_to(args) {
        if !args.dry_run {
            match lock_of_runs(session)? {
                // What died before it could say that it is done.
                Ok(_lock) => remove::forget()?,
                Err(ended) => return ended.finish(session, args.status),
            }
        }
        session.output.message("nothing to do: there is no Nix on this machine");
        return Ended::nothing().finish(session, args.status);
    }
    let plan = survey.plan(session, args)?;
    let (blocked, stays) = (survey.blockers(session, args), survey.stays(args));
    if args.dry_run || !blocked.is_empty() {
        survey.show(session, args, &plan, &blocked, &stays)?;
        return Ok(match blocked.is_empty() {
            false => Exit::Blocked,
            true if args.status.exit_code => Exit::Changes,
            true => Exit::Done,
        });
    }
    if let Some(run) = &survey.first {
        let text = format!("first, run {} ({}) is rolled back; then:", run.id, run.plan_name);
        session.output.tell(&Event::new("message", text));
    }
    session.output.plan_in_short(&plan);
    if !stays.is_empty() {
        session.output.tell(&Event::new("stays", lines("stays:", &stays)));
    }
    if !session.confirm("Remove Nix from this machine?")? {
        return Ended::declined(session).finish(session, args.status);
    }
    remove::remove(session, args, &plan)?.finish(session, args.status)
}

/// Uids of the daemons that runs made, which may not be undone yet: undoing them ends all that these users run.
fn ending(journal: &Journal) -> Result<Vec<u32>> {
    let mut uids = Vec::new();
    for run in journal.runs()?.iter().filter(|run| !run.state.is_over()) {
        for step in engine::recorded_plan(run)?.steps {
            match step.action {
                Action::KeepStopped(kept) => {
                    uids.extend(users::get_user_by_name(&kept.user).map(|user| user.uid()))
                }
                Action::KeepJobsStopped(kept) => uids.push(kept.uid),
                _ => {}
            }
        }
    }
    Ok(uids)
}

impl Survey {
    fn take() -> Result<Self> {
        Self::with(Journal::open_existing(Path::new(paths::JOURNAL))?.as_ref())
    }

    /// The same while this process holds the journal.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn under(journal: &Journal) -> Result<Self> {
        Self::with(Some(journal))
    }

    fn with(journal: Option<&Journal>) -> Result<Self> {
        let machine = Machine::live();
        let facts = facts::gather(&machine);
        let (current, brought, ending) = match journal {
            Some(journal) => (journal.current()?, Brought::find(journal)?, ending(journal)?),
            None => (None, None, Vec::new()),
        };
        let (removal, first) = match current {
            Some(run) if run.plan_name == UNINSTALL => (Some(run), None),
            other => (None, other),
        };
        let unfinished = removal.and_then(|run| unfinished(&run, &facts.flavour));
        let lost = first.as_ref().map(volumes::lost).transpose()?.flatten();
        let remains = Remains::find(&machine, &facts);
        Ok(Self { facts, remains, first, unfinished, lost, brought, ending })
    }

    /// Whether something is there that this removal takes away.
    pub fn leaves_anything_to(&self, args: &UninstallArgs) -> bool {
        !self.remains.is_empty() || (args.purge_homes && !self.remains.homes.is_empty())
    }

    /// What would be done when nothing is rolled back first.
    ///
    /// # Errors
    /// When the settings make no sense.
    pub fn plan(&self, session: &Session, args: &UninstallArgs) -> Result<Plan> {
        let wanted = Uninstall {
            keep_store: args.keep_store,
            purge_homes: args.purge_homes,
            drain_timeout: session.options()?.drain_timeout,
        };
        Plan::uninstall(&self.remains, &wanted)
    }

    /// All that forbids it, never only the first.
    pub fn blockers(&self, session: &Session, args: &UninstallArgs) -> Vec<String> {
        let mut blockers = Vec::new();
        let configured = match self.facts.flavour {
            Flavour::NixOs => Some("NixOS"),
            Flavour::SystemManager => Some("system-manager"),
            _ => None,
        };
        if let Some(name) = configured {
            blockers.push(format!(
                "{name} makes this machine from its configuration, and needs Nix: it cannot be removed"
            ));
        }
        if self.facts.flavour == Flavour::NixDarwin {
            blockers.push(
                "nix-darwin makes this Mac from its configuration, with programs of Nix: remove nix-darwin first \
                 (sudo darwin-uninstaller, or nix run nix-darwin#darwin-uninstaller), then run this again"
                    .to_owned(),
            );
        }
        // What was never tried on such a machine is not done to one.
        if let Some(name) = self.remains.distribution.as_deref().filter(|name| *name != "debian") {
            let packages = self.remains.packages.join(" ");
            blockers.push(format!("packages of {name} own Nix: remove them with its package manager ({packages}), and run this again"));
        }
        if self.remains.mac.is_some() && !session.settings.untried_on_macs {
            blockers.push(
                "removing Nix was tried on simulated Macs only: look at --dry-run, have a backup, and give --untried-on-macs".to_owned(),
            );
        }
        if args.keep_store {
            blockers.extend(self.brought.as_ref().map(Brought::blocks));
            let lost = self.lost.as_ref().map(Lost::passed_over);
            blockers.extend(lost.map(|lost| format!("--keep-store: {lost}")));
            return blockers;
        }
        let mounts = self
            .facts
            .mounts
            .iter()
            .filter(|mount| mount.path.starts_with("/nix") && mount.path != Path::new("/nix"));
        blockers.extend(
            mounts.map(|mount| format!("{0} is mounted: unmount it (umount {0})", text::path(&mount.path))),
        );
        let mut in_use = holders(&[self.remains.build_uids.as_slice(), &self.ending].concat());
        if let Some(mac) = self.facts.mac.as_ref().filter(|mac| mac.volume.is_some()) {
            match users_of_the_volume(&self.facts, mac) {
                Ok(holders) => in_use.extend(holders),
                Err(error) => blockers.push(format!("{error:#}")),
            }
        }
        blockers.extend(
            in_use.iter().map(|Holder { pid, command, uses }| {
                format!("process {pid} ({command}) uses {uses}: end it")
            }),
        );
        blockers
    }

    /// What is left on purpose.
    fn stays(&self, args: &UninstallArgs) -> Vec<String> {
        let mut stays = self.remains.stays.clone();
        if args.keep_store && self.remains.store && self.brought.is_none() {
            stays.push("/nix: --keep-store".to_owned());
        }
        stays.extend(self.lost.as_ref().map(Lost::passed_over));
        for home in self.remains.homes.iter().filter(|home| !args.purge_homes && !home.is_roots()) {
            let names: Vec<_> = home.names.iter().map(|name| name.to_string_lossy()).collect();
            stays.push(format!(
                "{} in {}: people's own (--purge-homes removes it)",
                names.join(", "),
                home.path.display()
            ));
        }
        stays.push(format!("{}: the journal, for nix-unroot history", paths::STATE_DIR));
        stays
    }

    fn show(
        &self,
        session: &Session,
        args: &UninstallArgs,
        plan: &Plan,
        blocked: &[String],
        stays: &[String],
    ) -> Result<()> {
        if let Some(run) = &self.first {
            session.output.line(&format!(
                "first, run {} ({}) is rolled back; then, seen from now:",
                run.id, run.plan_name
            ));
        }
        if args.dry_run {
            session.output.plan(plan);
            list(session, "stays:", stays);
        }
        list(session, "blocked, and nothing was changed:", blocked);
        session.output.document(&Removal {
            changed: false,
            would_change: blocked.is_empty(),
            rolls_back: self.first.as_ref().map(|run| run.id),
            blocked,
            plan: Some(plan),
            stays,
        })
    }
}

fn list(session: &Session, title: &str, all: &[String]) {
    if !all.is_empty() {
        session.output.line(&lines(title, all));
    }
}

fn lines(title: &str, all: &[String]) -> String {
    all.iter().fold(title.to_owned(), |text, line| format!("{text}\n  - {line}"))
}
