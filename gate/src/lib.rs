//! `nix-daemon-gate`: decides whether the peer of a connection may talk to the Nix daemon, builds the user
//! namespace that the daemon runs in, and becomes that daemon.
//!
//! One process, the [`acceptor`], waits for clients, as the user who owns the store, with `CAP_SETUID` and `CAP_SETGID`, and forks
//! one for each ([`serve`]). Whoever holds `CAP_SETUID` outside a user namespace can become root, so the acceptor and
//! [`namespace::maps::MapWriter`], which read nothing, are the only places where the capabilities live while anything is read or
//! parsed. `README.md` gives the order of events with the privileges at each point.

pub mod acceptor;
pub mod accounts;
pub mod args;
pub mod caps;
pub mod conf;
pub mod connections;
pub mod decide;
pub mod exec;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod group;
pub mod leftovers;
pub mod listen;
pub mod log;
pub mod namespace;
pub mod peer;
pub mod refuse;
pub mod serve;

/// A failure in words that an administrator can act on. Nobody decides on its kind: every one of them closes the
/// connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// A failure with this message: lower case, names the thing, the reason and the remedy.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// What every fallible function here returns.
pub type Result<T> = std::result::Result<T, Failure>;

/// Turns the error of a system call into a [`Failure`] that begins with what was being done.
pub(crate) fn while_doing<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> Failure {
    move |error| Failure(format!("cannot {what}: {error}"))
}
