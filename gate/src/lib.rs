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
pub mod builds;
#[cfg(target_os = "linux")]
pub mod caps;
pub mod conf;
pub mod connections;
pub mod decide;
pub mod exec;
#[cfg(all(any(test, fuzzing), target_os = "linux"))]
pub mod fuzz;
pub mod group;
pub mod leftovers;
pub mod listen;
pub mod log;
#[cfg(target_os = "linux")]
pub mod namespace;
pub mod protect;
pub mod refuse;
pub mod serve;
pub mod signals;

pub(crate) use helper_common::while_doing;
pub use helper_common::{Failure, Result, peer};
