//! `nix-unroot` takes a machine whose Nix is owned and run by root and hands it to an unprivileged `nix`
//! user, without losing a store path, a GC root, a trust rule or the way back.
//!
//! A module imports only what stands to its left:
//!
//! ```text
//! types, system, platform -> facts -> findings ----------> plan -> audit, engine -> report -> cli
//!                            remains ----------> actions --^
//!                            reown ------------> actions --^      /
//!                archive, download ---------------^      journal-^
//!                            daemon -> verify ----^
//! ```
//!
//! The two privileged helpers, `nix-daemon-gate` and `nix-root-scan`, are packages of their own and share no
//! code with this one, so that each can be audited alone.

pub mod actions;
pub mod archive;
pub mod audit;
pub mod cli;
pub mod daemon;
pub mod download;
pub mod engine;
pub mod facts;
pub mod findings;
pub mod journal;
pub mod plan;
pub mod platform;
pub mod remains;
pub mod reown;
pub mod report;
pub mod system;
pub mod types;
pub mod verify;
