//! The live checks that end a migration: each does the thing, on the running system, and looks.
//!
//! Checks are rows of [`CHECKS`]. None changes anything that outlasts it: what a check adds to the store or plants
//! beside it is gone afterwards, also when the check fails.

mod build_report;
mod build_uid;
mod client;
mod conf;
mod daemon_uid;
mod daemon_view;
mod gc_roots;
mod handshake;
mod id_map;
mod leftovers;
mod mac;
mod mac_build;
mod ownership;
#[cfg(target_os = "linux")]
mod peer;
#[cfg(not(target_os = "linux"))]
#[path = "peer_macos.rs"]
mod peer;
mod process;
mod run;
mod sweep;
mod target;
mod trust;

pub use handshake::{HANDSHAKE_COMMAND, handshake_child_main};
pub use run::{CHECKS, Check, CheckError, CheckResult, Outcome, Report, run};
pub use sweep::sweep;
pub use target::Target;
