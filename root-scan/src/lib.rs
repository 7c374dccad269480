//! Which store paths are alive, told to a Nix daemon that cannot see that for itself.
//!
//! Read in this order: [`store_path`] (what a store path is), [`roots`] (the collection), [`doubt`] (why a scan gives up),
//! [`look`] and [`helper`] (looking at files whose servers may hang),
//! [`memory`] (roots that cannot be seen now), [`gcroots`] and [`process`] (the two sources), [`scan`] (both), [`answer`] (the protocol), [`activation`] (the service), [`listen`] (its socket where systemd passes none), [`list`] (for people).
//!
//! The one rule of this crate: it may report too much, and it may refuse, but it never reports too little. Every function that
//! looks at the system returns a [`doubt::Doubt`] for what it could not see, and nothing but [`answer`] handles one.

pub mod activation;
pub mod answer;
pub mod doubt;
#[cfg(all(any(test, fuzzing), target_os = "linux"))]
pub mod fuzz;
pub mod gcroots;
pub mod helper;
pub mod list;
pub mod listen;
pub mod look;
pub mod memory;
pub mod process;
pub mod roots;
pub mod scan;
pub mod store_path;
mod sys;
