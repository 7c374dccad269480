//! The README's demonstration: a disposable machine with a root-owned Nix, before, migrating, after, and rolled back.

// The demonstration uses a part of what the tests use.
#[allow(dead_code)]
mod harness;

use anyhow::{Result, ensure};
use harness::layout::Layout;
use harness::machine::Machine;
use harness::{nixcmd, populate::World, product};

fn main() -> Result<()> {
    say(
        "making a disposable machine: Debian with the official installer's Nix, four users, profiles, roots, garbage",
    );
    let (machine, world) = harness::before(Layout::Official, "demo")?;
    product::install(&machine)?;
    world.hold(&machine)?;

    say("BEFORE: Nix is root's");
    show_owners(&machine)?;
    let dead = nixcmd::dead_paths(&machine)?;
    let live: Vec<_> = nixcmd::valid_paths(&machine)?.difference(&dead).cloned().collect();
    println!("  {} store paths are alive, {} are garbage", live.len(), dead.len());

    say("MIGRATE: nix-unroot migrate --yes");
    watch(&machine, "migrate --yes")?;

    say("AFTER: Nix is the nix user's");
    show_owners(&machine)?;
    let ids = nixcmd::build_uid(&machine, "alice", "demo")?;
    println!("  a build of alice ran with uid {}", ids.outside);
    show_garbage(&machine, &world, &live, dead.len())?;

    say("ROLLBACK: nix-unroot rollback --yes");
    watch(&machine, "rollback --yes")?;
    show_owners(&machine)?;
    let ids = nixcmd::build_uid(&machine, "alice", "demo-again")?;
    println!("  a build of alice ran with uid {}", ids.outside);
    say("done; the machine is gone");
    Ok(())
}

fn say(text: &str) {
    println!("\n== {text}");
}

fn show_owners(machine: &Machine) -> Result<()> {
    let trust = |user| nixcmd::trust(machine, user);
    let store = machine.root("stat -c '%U:%G %a' /nix/store /nix/var/nix/db/db.sqlite | paste -sd ' '")?;
    // A build keeps a connection open, so that there is a daemon process to look at.
    machine.background(
        "alice",
        &format!("{} --no-out-link", nixcmd::nix_build("pause", "sleep 5; echo > $out")),
    )?;
    let daemon = machine.root(
        "for i in $(seq 50); do pgrep -x nix-daemon >/dev/null && break; sleep 0.1; done; \
         ps -C nix-daemon -o user:20= | sort | uniq -c | paste -sd ' '",
    )?;
    println!("  who runs the daemon: {daemon}");
    println!("  /nix/store and its database: {store}");
    println!(
        "  trusted: root {:?}, alice {:?}, carol {:?}; dave {:?}",
        trust("root")?,
        trust("alice")?,
        trust("carol")?,
        trust("dave")?
    );
    Ok(())
}

fn show_garbage(machine: &Machine, world: &World, live: &[String], dead: usize) -> Result<()> {
    nixcmd::collect_garbage(machine)?;
    let left = nixcmd::valid_paths(machine)?;
    let lost: Vec<_> = live.iter().filter(|path| !left.contains(*path)).collect();
    ensure!(lost.is_empty(), "the garbage collection deleted live paths: {lost:#?}");
    world.assert_live(machine)?;
    world.assert_held(machine)?;
    println!(
        "  nix-store --gc: all {} live paths are kept; of {dead} garbage paths none is left",
        live.len()
    );
    Ok(())
}

/// Runs `nix-unroot` on the machine, with its output shown as it comes.
fn watch(machine: &Machine, arguments: &str) -> Result<()> {
    machine.shell("root", &format!("{}/nix-unroot {arguments}", product::DIR))?.watched()
}
