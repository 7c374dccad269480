//! Tests on real machines: a booted systemd, real accounts, the real Nix. See `tests/vm/README.md`.
//!
//! `scenarios::ground` proves the test ground itself on a root-owned Nix; `scenarios::product` runs `nix-unroot`.

mod harness;
mod scenarios;
