//! What scenarios ask of the Nix in a machine. Everything goes through the daemon's socket, so the same question can
//! be asked before and after a migration.

use super::machine::{Machine, quote};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;

/// Where the packages' source lies in a machine.
pub const WORLD_NIX: &str = "/opt/nix-unroot-tests/world.nix";

/// The `nix` command with the feature that it needs.
pub const NIX: &str = "nix --extra-experimental-features nix-command";

/// How the daemon sees a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// May set any option and add unsigned paths.
    Trusted,
    /// May build and query.
    Untrusted,
    /// May not connect.
    Refused,
}

/// A `nix-build` of a package made of `name` and a shell `script` that runs in the build. More arguments, such as
/// `-o LINK`, may follow.
pub fn nix_build(name: &str, script: &str) -> String {
    format!("nix-build {WORLD_NIX} --argstr name {name} --argstr script {}", quote(script))
}

/// Builds without a link; the store path.
pub fn build(machine: &Machine, user: &str, name: &str, script: &str) -> Result<String> {
    machine.user(user, &format!("{} --no-out-link", nix_build(name, script)))
}

/// How the daemon's standard socket treats `user`.
pub fn trust(machine: &Machine, user: &str) -> Result<Trust> {
    let outcome = machine.try_user(user, &format!("{NIX} store info --store daemon --json"))?;
    if outcome.status != 0 {
        // A refusing daemon closes the connection, and the client may or may not get to read why. So a dead daemon
        // looks the same: whoever expects a refusal asks for a user who is served as well.
        if outcome.stderr.contains("cannot open connection to remote store") {
            return Ok(Trust::Refused);
        }
        bail!("the daemon neither serves nor refuses {user}: {outcome}");
    }
    let info: serde_json::Value =
        serde_json::from_str(&outcome.stdout).with_context(|| format!("not JSON: {outcome}"))?;
    match &info["trusted"] {
        serde_json::Value::Bool(true) => Ok(Trust::Trusted),
        serde_json::Value::Bool(false) => Ok(Trust::Untrusted),
        serde_json::Value::Number(number) if number.as_u64() == Some(1) => Ok(Trust::Trusted),
        serde_json::Value::Number(number) if number.as_u64() == Some(0) => Ok(Trust::Untrusted),
        other => bail!("unexpected trust {other}: {outcome}"),
    }
}

/// All valid store paths.
pub fn valid_paths(machine: &Machine) -> Result<BTreeSet<String>> {
    lines(&machine.root(&format!("{NIX} path-info --all --store daemon"))?)
}

/// What a garbage collection would delete now.
pub fn dead_paths(machine: &Machine) -> Result<BTreeSet<String>> {
    lines(&machine.root("NIX_REMOTE=daemon nix-store --gc --print-dead 2>/dev/null")?)
}

/// Collects garbage.
pub fn collect_garbage(machine: &Machine) -> Result<String> {
    machine.root("NIX_REMOTE=daemon nix-store --gc 2>&1")
}

/// What lies in `/nix/store` and looks like a store path, valid or not.
pub fn on_disk(machine: &Machine) -> Result<BTreeSet<String>> {
    lines(
        &machine.root(
            "find /nix/store -mindepth 1 -maxdepth 1 -regex '/nix/store/[0-9a-z]+-.*' ! -name '*.lock'",
        )?,
    )
}

/// The uid that a build of `user` sees as its own from outside: the second number of its `uid_map`.
pub fn build_uid(machine: &Machine, user: &str, name: &str) -> Result<BuildIds> {
    let script = "while read line; do echo $line; done </proc/self/uid_map >$out/uid_map";
    let path = build(machine, user, name, script)?;
    let owner = machine.root(&format!("stat -c %u {path}/uid_map"))?;
    let map = machine.root(&format!("cat {path}/uid_map"))?;
    let outside = map.lines().next().and_then(|line| line.split_whitespace().nth(1));
    let outside =
        outside.and_then(|text| text.parse().ok()).with_context(|| format!("strange uid_map: {map}"))?;
    Ok(BuildIds { path, outside, owner: owner.parse()? })
}

/// The ids around a build.
#[derive(Debug, Clone)]
pub struct BuildIds {
    /// What was built.
    pub path: String,
    /// The build's uid, as its parent user namespace sees it.
    pub outside: u32,
    /// Who owns the result.
    pub owner: u32,
}

fn lines(text: &str) -> Result<BTreeSet<String>> {
    Ok(text.lines().filter(|line| line.starts_with("/nix/store/")).map(String::from).collect())
}
