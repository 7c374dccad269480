//! Killed at system calls: what changes a machine without an instant of its own around it is found so, too.

use super::super::interrupted::{KILLED, manifest, migrated_manifest};
use super::super::ready;
use super::undisturbed::runs;
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::manifest::Manifest;
use crate::harness::product;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::time::Duration;

/// The system calls of the main thread with which a run changes things.
const CALLS: [&str; 20] = [
    "write",
    "pwrite64",
    "openat",
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
    "symlink",
    "fchown",
    "chown",
    "lchown",
    "fchownat",
    "fchmod",
    "chmod",
    "fsetxattr",
    "utimensat",
    "ftruncate",
    "fsync",
    "fdatasync",
    "syncfs",
];
/// How many kills are tried unless `NIX_UNROOT_CALLS` says otherwise.
const KILLS: usize = 24;

/// A machine, and its state at both ends of an undisturbed migration.
struct Bench {
    machine: Machine,
    before: Manifest,
    migrated: Manifest,
    /// How often each call is made on the way there and back.
    made: [BTreeMap<&'static str, usize>; 2],
}

impl Bench {
    fn new() -> Result<Self> {
        let (machine, _) = ready(Layout::Debian, "last-call")?;
        let before = manifest(&machine)?;
        let there = Self::count(&machine, "migrate --yes")?;
        let migrated = migrated_manifest(&machine)?;
        let back = Self::count(&machine, "rollback --yes")?;
        before.assert_same(&manifest(&machine)?, "after an undisturbed run")?;
        Ok(Self { machine, before, migrated, made: [there, back] })
    }

    fn count(machine: &Machine, arguments: &str) -> Result<BTreeMap<&'static str, usize>> {
        let trace = CALLS.map(|name| format!("?{name}")).join(",");
        machine.root(&format!(
            "strace -o /run/calls -e trace={trace} {}/nix-unroot {arguments} >/dev/null 2>&1",
            product::DIR
        ))?;
        let log = machine.root("cat /run/calls")?;
        let count = |name: &str| log.lines().filter(|line| line.starts_with(&format!("{name}("))).count();
        Ok(CALLS.map(|name| (name, count(name))).into_iter().filter(|(_, count)| *count > 0).collect())
    }

    /// Runs until that call, of which SIGKILL is the answer; false when the run ended well without coming to it.
    fn dies(&self, arguments: &str, call: &str, nth: usize) -> Result<bool> {
        let script = format!(
            "end=0; strace -o /dev/null -e trace={call} -e inject={call}:signal=KILL:when={nth} {}/nix-unroot {arguments} || end=$?
             flock -w 60 /var/lib/nix-unroot/lock true; exit $end",
            product::DIR
        );
        let outcome = self.machine.shell("root", &script)?.timeout(Duration::from_secs(600)).run()?;
        ensure!([0, KILLED].contains(&outcome.status), "{outcome}");
        Ok(outcome.status == KILLED)
    }

    /// Dies there or on the way back, recovers one way or the other, and is as before then. Whether it died.
    fn recovers(&self, way: usize, call: &str, nth: usize, resumes: bool) -> Result<bool> {
        let machine = &self.machine;
        let earlier = runs(machine)?.len();
        if way == 1 {
            product::ok(machine, "migrate --yes")?;
        }
        let died = self.dies(["migrate --yes", "rollback --yes"][way], call, nth)?;
        let recorded = runs(machine)?.len() > earlier;
        if way == 0 && resumes {
            product::ok(machine, if recorded { "resume --yes" } else { "migrate --yes" })?;
            self.migrated.assert_same(&migrated_manifest(machine)?, "what it made")?;
        } else if way == 1 && resumes && died {
            product::ok(machine, "resume --yes")?;
        }
        product::ok(machine, "rollback --yes")?;
        self.before.assert_same(&manifest(machine)?, "what was given back")?;
        Ok(died)
    }
}

#[test]
fn any_system_call_may_be_the_last() -> Result<()> {
    let mut bench = Bench::new()?;
    let kills = std::env::var("NIX_UNROOT_CALLS").map_or(Ok(KILLS), |text| text.parse::<usize>())?;
    let all: Vec<_> =
        (0..2).flat_map(|way| bench.made[way].clone().into_keys().map(move |call| (way, call))).collect();
    println!("calls there and back: {:?}", bench.made);
    let (mut late, mut failures) = (0, Vec::new());
    for number in 0..kills {
        let (way, call) = all[number % all.len()];
        let count = *bench.made[way].get(call).context("a call that is made")?;
        // Spread over the run: golden-ratio steps come near every instant, and never twice to the same one.
        let nth = 1 + (number * 618 + 309) % 1000 * count / 1000;
        let text = format!("{} {call} {nth} of {count}", ["there:", "back:"][way]);
        match bench.recovers(way, call, nth, number / all.len() % 2 == number % 2) {
            Ok(true) => println!("{text}: exact"),
            Ok(false) => {
                println!("{text}: it ended before that");
                late += 1;
            }
            Err(error) => {
                println!("{text}: FAILED: {error:#}");
                failures.push(format!("{text}: {error:#}"));
                bench = Bench::new()?;
            }
        }
    }
    println!("{kills} kills at system calls, {late} of which came too late");
    ensure!(late * 10 <= kills, "{late} of {kills} came too late");
    ensure!(failures.is_empty(), "{} of {kills}: {}", failures.len(), failures.join("\n\n"));
    Ok(())
}
