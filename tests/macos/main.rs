//! `nix-unroot` on a simulated Mac. It is the Linux program: which system it is on, it learns from the machine.
//!
//! Needs root (mounts), and Python 3 for the stand-ins.

mod inspect;
mod install;
mod killed;
mod mac;
mod migrate;
mod property_lists;
mod refusals;
mod uninstall;
