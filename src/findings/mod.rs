//! What stands in the way of a migration, and what an administrator should know before one.
//!
//! Every check is a row of a table and looks at [`Facts`] only; all are asked, never only until the first complaint.

mod accept;
mod access;
mod accounts;
mod flavour;
mod kernel;
mod macos;
mod nix;
mod reading;
mod running;
mod security;
mod settings;
mod share;
mod store;
#[cfg(test)]
mod tests;

pub use accept::{NotOverridable, OVERRIDABLE, Overridable, check_accepted};
pub use accounts::free_range;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use share::{Share, copied, shared};

use crate::facts::Facts;
use crate::types::SubidRange;

/// All findings for these facts: blockers first (those that were accepted after the others), then warnings, and by key within.
/// The same facts and options give the same findings.
pub fn collect(facts: &Facts, options: &Options) -> Vec<Finding> {
    let finding = |check: &Check| (check.see)(facts, options).map(|seen| check.with(seen, options));
    let mut findings: Vec<_> = checks().filter_map(finding).collect();
    findings.sort_by(|a, b| (b.severity, a.accepted, &a.key).cmp(&(a.severity, b.accepted, &b.key)));
    findings
}

/// What an administrator chose, as far as findings depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a migration waits for running builds, in seconds.
    pub drain_timeout_seconds: u64,
    /// Name of the user, and of the group, that the store is to belong to.
    pub nix_user: String,
    /// The range of build ids that is wanted.
    pub range: SubidRange,
    /// Whether Nix is to be installed, and not migrated.
    pub installing: bool,
    /// Whether a newer Nix is brought along.
    pub brings_nix: bool,
    /// Another run that is going on or was interrupted, in words; the journal and the lock know.
    pub another_run: Option<String>,
    /// What the Nix group will be able to read.
    pub share: Share,
    /// Leaves another installer's receipt and uninstaller where they are.
    pub keep_installer: bool,
    /// Whether no init system is to start the daemon.
    pub without_init: bool,
    /// Whether a Mac may be changed, although that was tried on simulated ones only.
    pub untried_on_macs: bool,
    /// Keys of blockers that do not block, since an administrator said so ([`check_accepted`] has seen them).
    pub accept: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            drain_timeout_seconds: 600,
            nix_user: "nix".to_owned(),
            range: SubidRange::NIX_DEFAULT,
            installing: false,
            brings_nix: false,
            another_run: None,
            share: Share::default(),
            keep_installer: false,
            without_init: false,
            untried_on_macs: false,
            accept: Vec::new(),
        }
    }
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Something will be different, or could be better.
    Warning,
    /// A migration is refused, unless the finding was accepted.
    Blocker,
}

/// One thing found on this machine.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Finding {
    /// Stable name of this kind of finding: fleets allow-list by it.
    pub key: String,
    /// How much it matters.
    pub severity: Severity,
    /// What it is, the same on every machine.
    pub title: String,
    /// What was seen on this one.
    pub seen: String,
    /// What to do about it, in words.
    pub remedy: Option<String>,
    /// The remedy as commands, each a list of words.
    pub commands: Vec<Vec<String>>,
    /// Of a blocker that may be accepted by its key: why going on is safe.
    pub overridable: Option<String>,
    /// Whether it was accepted, so that it does not block.
    pub accepted: bool,
}

impl Finding {
    /// Whether it forbids a migration.
    pub fn blocks(&self) -> bool {
        self.severity == Severity::Blocker && !self.accepted
    }
}

/// A row of the table of checks.
struct Check {
    key: &'static str,
    severity: Severity,
    title: &'static str,
    see: fn(&Facts, &Options) -> Option<Seen>,
}

impl Check {
    fn with(&self, seen: Seen, options: &Options) -> Finding {
        let overridable = OVERRIDABLE.iter().find(|row| row.key == self.key);
        Finding {
            accepted: overridable.is_some() && options.accept.iter().any(|key| key == self.key),
            overridable: overridable.map(|row| row.because.to_owned()),
            key: self.key.to_owned(),
            severity: self.severity,
            title: self.title.to_owned(),
            seen: seen.text,
            remedy: seen.remedy,
            commands: seen.commands,
        }
    }
}

/// What a check saw on this machine.
struct Seen {
    text: String,
    remedy: Option<String>,
    commands: Vec<Vec<String>>,
}

impl Seen {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), remedy: None, commands: Vec::new() }
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    fn command<S: ToString>(mut self, words: &[S]) -> Self {
        self.commands.push(words.iter().map(ToString::to_string).collect());
        self
    }
}

/// Every check there is. A new group is a file and a line here; a new check is a row in its group's table.
fn checks() -> impl Iterator<Item = &'static Check> {
    let groups: [&[Check]; 11] = [
        flavour::CHECKS,
        nix::CHECKS,
        kernel::CHECKS,
        macos::CHECKS,
        store::CHECKS,
        running::CHECKS,
        accounts::CHECKS,
        settings::CHECKS,
        reading::CHECKS,
        access::CHECKS,
        security::CHECKS,
    ];
    groups.into_iter().flatten()
}
