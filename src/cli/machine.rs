//! What `inspect`, `plan`, `migrate` and `install` find out before anything else.

use std::path::Path;

use anyhow::Result;

use crate::facts::{self, Facts, Flavour};
use crate::findings::{self, Finding};
use crate::journal::{Journal, Lock, Run, RunState};
use crate::plan::{Options, Plan};
use crate::platform::paths;
use crate::report::{About, Overview, Report};

/// A machine as it stands, and what follows from that.
pub struct Survey {
    pub facts: Facts,
    pub findings: Vec<Finding>,
    /// The run that `resume` or `rollback` would be about.
    pub current: Option<Run>,
}

impl Survey {
    /// Looks at the machine; writes nothing.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn take(options: &Options, lock: LockCheck) -> Result<Self> {
        let facts = facts::gather(&facts::Machine::live().with_wanted_ids(options.subid_range));
        let journal = Path::new(paths::JOURNAL);
        let current = match Journal::open_existing(journal)? {
            Some(journal) => journal.current()?,
            None => None,
        };
        let another_run = (lock == LockCheck::Wanted && Lock::is_held(journal))
            .then(|| format!("another run holds {}", Path::new(paths::STATE_DIR).join("lock").display()))
            .or_else(|| current.as_ref().and_then(|run| unfinished(run, &facts.flavour)));
        let findings = findings::collect(&facts, &options.for_findings(&facts, another_run));
        Ok(Self { facts, findings, current })
    }

    /// Whether there is nothing left to migrate.
    pub fn is_migrated(&self) -> bool {
        self.facts.flavour == Flavour::Unprivileged
            && self.current.as_ref().is_none_or(|run| run.state == RunState::Applied)
    }

    /// Whether something forbids a migration.
    pub fn is_blocked(&self) -> bool {
        self.findings.iter().any(Finding::blocks)
    }

    /// What is told of it.
    pub fn report<'a>(&'a self, plan: Option<&'a Plan>) -> Report<'a> {
        Report {
            about: About::now(),
            overview: Overview::of_findings(&self.findings, self.is_migrated(), plan),
            facts: &self.facts,
            findings: &self.findings,
            plan,
            audit: Vec::new(),
            unread: &[],
        }
    }

    /// The plan for this machine.
    ///
    /// # Errors
    /// When the facts are not enough for one.
    pub fn plan(&self, options: &Options) -> Result<Plan> {
        Plan::make(&self.facts, options)
    }
}

/// Whether the lock is to be looked at: not by the run that holds it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum LockCheck {
    Wanted,
    HeldByUs,
}

/// The plan after which nothing is left that could run unprivileged.
pub const UNINSTALL: &str = "uninstall";

/// What there is to say of a run that has not come to an end that holds; none of one that has.
pub fn unfinished(run: &Run, flavour: &Flavour) -> Option<String> {
    let how = match run.state {
        RunState::Applied if run.plan_name == UNINSTALL => return None,
        RunState::Applying => "was interrupted",
        RunState::Undoing => "is half undone",
        RunState::Applied if *flavour != Flavour::Unprivileged => {
            "is applied, but Nix does not run unprivileged any more"
        }
        RunState::Applied | RunState::Undone | RunState::Final => return None,
    };
    Some(format!(
        "run {} ({}) {how}: nix-unroot resume or nix-unroot rollback ends it",
        run.id, run.plan_name
    ))
}
