//! What is going on at the moment.

use super::Severity::{Blocker, Info};
use super::{Check, Options, Seen};
use crate::facts::{Facts, NixProcess, ProcessRole};

pub(super) const CHECKS: &[Check] = &[
    Check {
        key: "another-run",
        severity: Blocker,
        title: "another run is going on, or was interrupted",
        see: another_run,
    },
    Check {
        key: "builds-running-too-long",
        severity: Blocker,
        title: "a build has been running for longer than the migration waits",
        see: long_builds,
    },
    Check {
        key: "builds-running",
        severity: Info,
        title: "builds are running; a migration lets them finish first",
        see: builds,
    },
    Check {
        key: "clients-connected",
        severity: Info,
        title: "Nix is in use; who is connected has to start again after a migration",
        see: clients,
    },
];

fn another_run(_: &Facts, options: &Options) -> Option<Seen> {
    let run = options.another_run.as_ref()?;
    Some(
        Seen::new(run.as_str())
            .remedy(
                "wait for it; when it was interrupted, finish it with `resume` or undo it with `rollback`",
            )
            .command(&["nix-unroot", "resume"]),
    )
}

fn long_builds(facts: &Facts, options: &Options) -> Option<Seen> {
    let limit = options.drain_timeout_seconds;
    let seen = oldest_build(facts).filter(|build| build.age_seconds > limit).map(describe)?;
    let count = all(facts, ProcessRole::Build).filter(|build| build.age_seconds > limit).count();
    Some(
        Seen::new(match count {
            1 => format!("a process of a build is older than {limit} s: {seen}"),
            _ => format!("{count} processes of builds are older than {limit} s; the oldest: {seen}"),
        })
        .remedy("wait until it is done, or give more time with --drain-timeout SECONDS"),
    )
}

fn builds(facts: &Facts, options: &Options) -> Option<Seen> {
    let limit = options.drain_timeout_seconds;
    let oldest = oldest_build(facts)?;
    let young = all(facts, ProcessRole::Build).filter(|build| build.age_seconds <= limit).count();
    (young > 0).then(|| {
        let processes = if young == 1 { "process" } else { "processes" };
        Seen::new(format!("{young} {processes}; the oldest of all: {}", describe(oldest)))
    })
}

fn clients(facts: &Facts, _: &Options) -> Option<Seen> {
    let clients: Vec<_> = all(facts, ProcessRole::Client).map(describe).collect();
    let workers = all(facts, ProcessRole::Worker).count();
    (!clients.is_empty() || workers > 0).then(|| {
        let shown = clients.iter().take(3).cloned().collect::<Vec<_>>().join("; ");
        let names = if shown.is_empty() { String::new() } else { format!(": {shown}") };
        Seen::new(format!("{workers} connections, {} clients{names}", clients.len()))
    })
}

fn all(facts: &Facts, role: ProcessRole) -> impl Iterator<Item = &NixProcess> {
    facts.processes.iter().filter(move |process| process.role == role)
}

fn oldest_build(facts: &Facts) -> Option<&NixProcess> {
    all(facts, ProcessRole::Build).max_by_key(|build| build.age_seconds)
}

fn describe(process: &NixProcess) -> String {
    let NixProcess { pid, uid, command, age_seconds, .. } = process;
    format!("pid {pid}, uid {uid}, {age_seconds} s: {command}")
}
