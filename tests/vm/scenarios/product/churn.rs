//! Users build, link, install and run things while the garbage is collected all the time: nothing that has a root may go. The same
//! work with Nix's own recipe for an unprivileged daemon loses paths, so this test can see a loss.

use super::migrated;
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::stock;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::time::Duration;

const USERS: [&str; 3] = ["alice", "bob", "carol"];
const WORKER: &str = include_str!("../../fixtures/churn/worker.sh");
const COLLECTOR: &str = include_str!("../../fixtures/churn/collector.sh");
/// How long, in seconds; more with `NIX_UNROOT_CHURN_SECONDS`.
const SECONDS: u64 = 15;

#[test]
fn no_live_path_is_lost() -> Result<()> {
    let (machine, world) = migrated(Layout::Debian, "churn")?;
    let seconds = std::env::var("NIX_UNROOT_CHURN_SECONDS").map_or(Ok(SECONDS), |text| text.parse())?;
    world.hold(&machine)?;
    let seen = Seen::of(&machine, seconds)?;
    println!("nix-root-scan, {seconds} s: {}", seen.text);
    ensure!(seen.count("lost")? == 0, "LIVE PATHS WERE LOST: {}", seen.text);
    if seen.count("failed")? > 0 {
        let journal = machine.root("journalctl -q -o short-precise -p notice | tail -n 60")?;
        bail!("something the users did failed: {}\n{journal}", seen.text);
    }
    ensure!(seen.count("refused")? == 0, "a collection was refused: {}", seen.text);
    for what in ["rounds", "deleted", "checked", "generations", "processes"] {
        ensure!(seen.count(what)? > 3, "too little happened: {}", seen.text);
    }
    world.assert_live(&machine)?;
    world.assert_held(&machine)
}

#[test]
fn the_stock_recipe_loses_live_paths() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "churn-stock")?;
    stock::in_place_of_ours(&machine)?;
    let seen = Seen::of(&machine, 5)?;
    println!("nix store roots-daemon, 5 s: {}", seen.text);
    ensure!(seen.count("rounds")? > seen.count("refused")?, "no collection: {}", seen.text);
    ensure!(seen.count("lost")? > 0, "nothing was lost, so this test cannot see a loss: {}", seen.text);
    Ok(())
}

/// What the workers and the collector counted.
struct Seen {
    counts: BTreeMap<String, u64>,
    text: String,
}

impl Seen {
    fn of(machine: &Machine, seconds: u64) -> Result<Seen> {
        machine.write_file("/opt/churn/worker.sh", "0644", WORKER)?;
        machine.write_file("/opt/churn/collector.sh", "0644", COLLECTOR)?;
        let work = |user: &'static str, script: &str, seconds: u64| {
            let script = format!("bash /opt/churn/{script} {seconds}");
            machine.shell(user, &script)?.timeout(Duration::from_secs(seconds + 300)).ok()
        };
        let said = std::thread::scope(|scope| {
            let work = &work;
            let mut threads: Vec<_> =
                USERS.map(|user| scope.spawn(move || work(user, "worker.sh", seconds))).into_iter().collect();
            threads.push(scope.spawn(move || work("root", "collector.sh", seconds)));
            let said = threads.into_iter().map(|thread| thread.join().expect("a thread panicked"));
            said.collect::<Result<Vec<_>>>()
        })?;
        // One more round, when all work has ended.
        let last = work("root", "collector.sh", 0)?;
        Seen::sum(said.into_iter().chain([last]))
    }

    /// The last line of each has the numbers; those before it tell what went wrong.
    fn sum(said: impl Iterator<Item = String>) -> Result<Seen> {
        let (mut counts, mut notes) = (BTreeMap::new(), Vec::new());
        for said in said {
            let (before, numbers) = said.rsplit_once('\n').unwrap_or(("", &said));
            notes.extend(before.lines().take(5).map(String::from));
            for part in numbers.split_whitespace() {
                let (name, number) = part.split_once('=').with_context(|| format!("no numbers: {said}"))?;
                *counts.entry(name.to_owned()).or_default() += number.parse::<u64>()?;
            }
        }
        let numbers: Vec<_> = counts.iter().map(|(name, number)| format!("{number} {name}")).collect();
        notes.insert(0, numbers.join(", "));
        Ok(Seen { counts, text: notes.join("\n  ") })
    }

    fn count(&self, name: &str) -> Result<u64> {
        self.counts.get(name).copied().with_context(|| format!("{name} was not counted"))
    }
}
