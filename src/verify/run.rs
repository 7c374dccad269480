//! The table of checks, and running them.

use std::io;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread::{self, ScopedJoinHandle};

use schemars::JsonSchema;
use serde::Serialize;

use super::{Target, build_uid, client, daemon_uid, daemon_view, gc_roots, ownership, peer, trust};
use crate::daemon::DaemonError;
use crate::system::text;

/// What a check saw.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Outcome {
    /// Whether it is as it should be.
    pub passed: bool,
    /// What was seen on this machine.
    pub seen: String,
    /// What to do when it is not; `None` when it is.
    pub remedy: Option<String>,
}

impl Outcome {
    pub(super) fn passed(seen: impl Into<String>) -> Self {
        Self { passed: true, seen: seen.into(), remedy: None }
    }

    pub(super) fn failed(seen: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { passed: false, seen: seen.into(), remedy: Some(remedy.into()) }
    }

    /// Passed when there are no `complaints`, which otherwise are what was seen.
    pub(super) fn unless(complaints: &[String], good: impl Into<String>, remedy: &str) -> Self {
        if complaints.is_empty() { Self::passed(good) } else { Self::failed(complaints.join("; "), remedy) }
    }
}

/// Why a check could not be carried out. It counts as failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The daemon did not do its part.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The system did not.
    #[error("{what} {}: {reason}", text::path(path))]
    Io {
        /// What was to be done to it.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl CheckError {
    /// For `map_err`: doing `what` to `path` failed.
    pub(super) fn io<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> Self {
        move |reason| Self::Io { what, path: path.to_owned(), reason: reason.into() }
    }
}

/// One check.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Its stable name.
    pub key: &'static str,
    /// What it proves, in words.
    pub title: &'static str,
    /// Whether it makes the daemon look for GC roots, which a daemon with a wrong view of the machine must not do.
    pub(super) looks_for_roots: bool,
    pub(super) function: fn(&Target) -> Result<Outcome, CheckError>,
}

/// All checks on Linux, in the order in which they run.
pub const CHECKS: &[Check] = &[
    Check {
        key: "daemon-uid",
        title: "the daemon runs as the nix user, in a user namespace of its own",
        looks_for_roots: false,
        function: daemon_uid::check,
    },
    Check {
        key: DAEMON_VIEW,
        title: "the daemon sees the directories that everybody sees",
        looks_for_roots: false,
        function: daemon_view::check,
    },
    Check {
        key: "build-uid",
        title: "a sandboxed build runs under a uid of the subordinate range",
        looks_for_roots: true,
        function: build_uid::check,
    },
    TRUST_ROOT,
    TRUST_UNTRUSTED,
    Check {
        key: "gc-roots",
        title: "a root in a directory that nix cannot enter keeps its path alive",
        looks_for_roots: true,
        function: gc_roots::check,
    },
    NOTHING_ROOT_OWNED,
    ROOT_CLIENT,
];

// The same on every system.
pub(super) const TRUST_ROOT: Check = Check {
    key: "trust-root",
    title: "root is trusted by the daemon",
    looks_for_roots: false,
    function: trust::check_root,
};
pub(super) const TRUST_UNTRUSTED: Check = Check {
    key: "trust-untrusted",
    title: "an ordinary user is not trusted",
    looks_for_roots: false,
    function: trust::check_untrusted,
};
pub(super) const NOTHING_ROOT_OWNED: Check = Check {
    key: "nothing-root-owned",
    title: "the store and its state are the nix user's, what guards them is root's",
    looks_for_roots: false,
    function: ownership::check,
};
pub(super) const ROOT_CLIENT: Check = Check {
    key: "root-client",
    title: "root's own commands go through the daemon",
    looks_for_roots: false,
    function: client::check,
};

/// The check that decides whether the daemon may be asked to look for roots.
const DAEMON_VIEW: &str = "daemon-view";

/// One check's result.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct CheckResult {
    /// [`Check::key`].
    pub key: &'static str,
    /// [`Check::title`].
    pub title: &'static str,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// All results.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize)]
pub struct Report {
    /// Whether every check passed.
    pub passed: bool,
    /// The checks, in order.
    pub checks: Vec<CheckResult>,
}

impl Check {
    fn carry_out(&self, target: &Target) -> Outcome {
        (self.function)(target).unwrap_or_else(|error| Outcome::failed(error.to_string(), target.logs))
    }
}

/// Runs every check, also after one that fails (but none that could do harm then), and tells `progress` of each when it is done. Needs root.
///
/// Those that look for roots take longest, and go on beside the others once the first of them may begin.
pub fn run(target: &Target, progress: &mut dyn FnMut(&CheckResult)) -> Report {
    let all = target.checks;
    let mut checks = Vec::with_capacity(all.len());
    let mut may_look_for_roots = true;
    let mut can_share = peer::tells_connections_apart();
    thread::scope(|scope| {
        let mut begun: Vec<(&str, ScopedJoinHandle<'_, Outcome>)> = Vec::new();
        for (index, check) in all.iter().enumerate() {
            let outcome = if let Some(at) = begun.iter().position(|(key, _)| *key == check.key) {
                begun.swap_remove(at).1.join().unwrap_or_else(|panic| resume_unwind(panic))
            } else if check.looks_for_roots && !may_look_for_roots {
                Outcome::failed("not tried: it could delete users' roots", "see the check daemon-view")
            } else {
                if check.looks_for_roots && std::mem::take(&mut can_share) {
                    let others = all[index + 1..].iter().filter(|other| other.looks_for_roots);
                    let begin = |other: &'static Check| scope.spawn(|| other.carry_out(target));
                    begun.extend(others.map(|other| (other.key, begin(other))));
                }
                check.carry_out(target)
            };
            if check.key == DAEMON_VIEW {
                may_look_for_roots = outcome.passed;
            }
            let result = CheckResult { key: check.key, title: check.title, outcome };
            progress(&result);
            checks.push(result);
        }
    });
    Report { passed: checks.iter().all(|check| check.outcome.passed), checks }
}
