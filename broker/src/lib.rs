//! `nix-build-broker`: runs the builds of a Nix daemon that is not root, each under a uid of its own.
//!
//! Read in this order: [`args`], [`wire`] (what the daemon's side says), [`policy`] (what of it is taken), [`serve`] (the process that waits), [`slots`] (which uids
//! are free), [`worker`] (one build, from request to hand-over), [`work`] (root's own directory), [`platform`] (what differs
//! between macOS and Linux), [`start`] (the builder's process), [`processes`] (ending all of a uid), [`handover`] (outputs). [`document`] and [`client`]
//! run as the daemon's account and protect nothing.

pub mod args;
pub mod client;
pub mod document;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod handover;
pub mod log;
pub mod platform;
pub mod policy;
pub mod processes;
pub mod serve;
pub mod slots;
pub mod start;
pub mod tree;
pub mod wire;
pub mod work;
pub mod worker;

pub use helper_common::{Failure, Result, while_doing};
