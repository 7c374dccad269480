//! Whatever keeps the scanner from being sure, a garbage collection fails, says so, and deletes nothing; with the remedy it works
//! again. Asked of the real daemon, for each kind of doubt that `root-scan/src` knows
//! (`kinds.rs` sees to that).

mod cases;
mod kinds;

use super::migrated;
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::{nixcmd, product};
use anyhow::{Context, Result, ensure};
use cases::{CASES, Case};
use std::collections::BTreeSet;

const FIXTURES: [(&str, &str); 3] = [
    ("prelude.sh", include_str!("../../../fixtures/doubts/prelude.sh")),
    ("random.pl", include_str!("../../../fixtures/doubts/random.pl")),
    ("many.pl", include_str!("../../../fixtures/doubts/many.pl")),
];

#[test]
fn every_doubt_stops_the_collection() -> Result<()> {
    let (machine, world) = migrated(Layout::Debian, "doubts")?;
    world.hold(&machine)?;
    for (name, text) in FIXTURES {
        machine.write_file(&format!("/opt/doubts/{name}"), "0644", text)?;
    }
    // What the population left is garbage enough for the first case; each case adds its own.
    nixcmd::collect_garbage(&machine)?;
    println!("{:34} {:14} what the collection says", "doubt", "kind");
    let mut failed = Vec::new();
    // While one works on a case: NIX_UNROOT_CASES="memory,SIG" runs those with one of these words in the name.
    let words = std::env::var("NIX_UNROOT_CASES").unwrap_or_default();
    let wanted = |case: &&Case| words.split(',').any(|word| case.name.contains(word));
    let cases: Vec<_> = CASES.iter().filter(wanted).collect();
    for case in &cases {
        let began = std::time::Instant::now();
        let said = check(&machine, case).unwrap_or_else(|error| {
            failed.push(case.name);
            format!("FAILED: {error:#}")
        });
        println!(
            "{:34} {:14} {:4.1} s {said}",
            case.name,
            format!("{:?}", case.kind),
            began.elapsed().as_secs_f32()
        );
    }
    ensure!(failed.is_empty(), "these cases failed, see above: {failed:?}");
    println!("{} doubts; in each nothing was deleted, and the remedy helped", cases.len());
    world.assert_live(&machine)?;
    world.assert_held(&machine)
}

/// On a busy machine one may pass by itself. A check asks again, for some seconds, and does not fail for it.
#[test]
fn a_doubt_that_passes_fails_no_check() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "doubt-passes")?;
    machine.root("cd /nix/var/nix; mv gcroots real; ln -s real gcroots; ! nix-store --gc")?;
    machine.background("root", "sleep 5; cd /nix/var/nix; rm gcroots; mv real gcroots; touch /run/passed")?;
    product::ok(&machine, "verify")?;
    machine.root("test -e /run/passed").map(drop)
}

/// What the collection said.
fn check(machine: &Machine, case: &Case) -> Result<String> {
    let garbage = machine.root(&format!("echo '{}' >/root/g; nix-store --add /root/g", case.name))?;
    let before = state(machine)?;
    let cursor = machine.root("journalctl -q -n 1 -o json --output-fields=MESSAGE | grep -o '\"__CURSOR\":\"[^\"]*' | cut -d'\"' -f4")?;
    let made = script(machine, case.make);
    let refused = machine.try_root("nix-store --gc");
    let undone = script(machine, case.undo);
    made.context("cannot make it so")?;
    undone.context("cannot undo it")?;
    let refused = refused?;
    ensure!(refused.status != 0, "the garbage collection went on: {refused}");
    ensure!(refused.stderr.contains(case.kind.message()), "it does not say why: {refused}");
    ensure!(state(machine)? == before, "something was deleted or added: {refused}");
    let journal = machine.root(&format!(
        "journalctl --sync; journalctl -q -o cat -u nix-root-scan.service -u nix-root-scan.socket --after-cursor='{cursor}'"
    ))?;
    ensure!(journal.contains(case.journal), "not in the journal: {:?}; there is:\n{journal}", case.journal);

    machine.root("nix-store --gc").context("the remedy does not help")?;
    let (mut valid, mut on_disk) = before;
    ensure!(valid.remove(&garbage) && on_disk.remove(&garbage), "{garbage} was not there");
    ensure!(state(machine)? == (valid, on_disk), "the collection after the remedy left something else");
    Ok(refused.stderr.lines().last().unwrap_or_default().to_owned())
}

/// What is registered, and what is on the disk.
fn state(machine: &Machine) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    Ok((nixcmd::valid_paths(machine)?, nixcmd::on_disk(machine)?))
}

fn script(machine: &Machine, script: &str) -> Result<()> {
    machine.root(&format!(". /opt/doubts/prelude.sh; {script}")).map(drop)
}
