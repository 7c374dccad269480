//! A machine that has been used for a while: users, rules, profiles, roots of every kind, and garbage.

use super::cache::{self, Cached};
use super::layout::Layout;
use super::machine::Machine;
use super::nixcmd::{NIX, WORLD_NIX, build, nix_build};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// All who have a home. alice is trusted, dave may not connect.
pub const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// Counts the processes of [`World::hold`], in a machine.
pub const COUNT_HOLDERS: &str = "pgrep -c -x -f '(/nix/store/.*/busybox )?sleep 1000000' || true";

const WORLD_SOURCE: &str = include_str!("../fixtures/world.nix");

/// What the population left, by what it proves.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct World {
    /// What must outlive every garbage collection: what it is, and the store path.
    pub live: Vec<(String, String)>,
    /// What the next garbage collection must delete.
    pub garbage: Vec<(String, String)>,
    /// What only a process can hold: see [`World::hold`].
    pub held: Vec<Held>,
}

/// A store path without any root on disk, which a process of `user` refers to.
#[derive(Debug, Serialize, Deserialize)]
pub struct Held {
    /// Whose process.
    pub user: String,
    /// The script that keeps it, and does not end.
    pub script: String,
    /// The store path.
    pub path: String,
}

impl World {
    /// Reads what [`tree`] wrote.
    pub fn load(path: &Path) -> Result<World> {
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Starts the processes that hold the [`World::held`] paths. A reboot ends them.
    pub fn hold(&self, machine: &Machine) -> Result<()> {
        for held in &self.held {
            machine.background(&held.user, &held.script)?;
        }
        machine.root(&format!(
            "for i in $(seq 100); do test $({COUNT_HOLDERS}) = {} && exit 0; sleep 0.1; done; exit 1",
            self.held.len()
        ))?;
        Ok(())
    }

    /// Fails unless everything live is there, down to the file.
    pub fn assert_live(&self, machine: &Machine) -> Result<()> {
        let paths: Vec<_> = self.live.iter().map(|(_, path)| path.as_str()).collect();
        assert_exist(machine, &paths)
    }

    /// Fails unless everything held is there.
    pub fn assert_held(&self, machine: &Machine) -> Result<()> {
        let paths: Vec<_> = self.held.iter().map(|held| held.path.as_str()).collect();
        assert_exist(machine, &paths)
    }
}

fn assert_exist(machine: &Machine, paths: &[&str]) -> Result<()> {
    let all = paths.join(" ");
    machine.root(&format!("ls -d {all} >/dev/null; NIX_REMOTE=daemon nix-store --check-validity {all}"))?;
    Ok(())
}

/// The populated tree of a layout: `tree/` and `world.json` in a cached directory.
pub fn tree(layout: Layout) -> Result<Cached> {
    let base = layout.base()?;
    let base_name = base.to_string_lossy().into_owned();
    let inputs = [
        base_name.as_str(),
        include_str!("populate.rs"),
        include_str!("layout/mod.rs"),
        include_str!("layout/archive.rs"),
        include_str!("layout/debian.rs"),
        include_str!("layout/official.rs"),
        include_str!("../fixtures/official/install"),
        include_str!("../fixtures/official/nix-daemon.service"),
        include_str!("../fixtures/official/nix-daemon.socket"),
        include_str!("../fixtures/official/nix-daemon.sh"),
        include_str!("../fixtures/official/tmpfiles.conf"),
        WORLD_SOURCE,
    ];
    cache::tree(&format!("before-{}", layout.name()), &inputs, |dir| {
        let mut machine = Machine::copy_of(&base.join("tree"), &format!("make-{}", layout.name()))?;
        machine.boot()?;
        layout.install(&machine).context("cannot install Nix")?;
        let world = populate(&machine, layout).context("cannot populate the machine")?;
        machine.stop()?;
        std::fs::write(dir.join("world.json"), serde_json::to_vec_pretty(&world)?)?;
        super::exec::host("cp")
            .args(["-a", "--reflink=auto"])
            .arg(machine.tree())
            .arg(dir.join("tree"))
            .ok()?;
        Ok(())
    })
}

fn populate(machine: &Machine, layout: Layout) -> Result<World> {
    accounts(machine, layout)?;
    rules(machine)?;
    packages(machine)?;
    let mut world = World::default();
    profiles(machine, &mut world)?;
    per_user_directories(machine, &mut world)?;
    result_links(machine, &mut world)?;
    roots_of_root(machine, &mut world)?;
    garbage(machine, &mut world)?;
    held(machine, &mut world)?;
    // Files with equal content become hard links of each other.
    machine.root("nix-store --optimise")?;
    // Builds without a link left links in gcroots/auto to temporary files that are gone; Nix removes such links whenever
    // it looks for roots, and no manifest is to depend on when that is.
    machine.root("nix-store --gc --print-roots >/dev/null")?;
    Ok(world)
}

/// The source of all packages, and what they are made of.
pub fn packages(machine: &Machine) -> Result<()> {
    machine.write_file(WORLD_NIX, "0644", WORLD_SOURCE)?;
    machine.root(&format!("cd $(dirname {WORLD_NIX}); mkdir tools; cp /usr/bin/busybox tools"))?;
    Ok(())
}

fn accounts(machine: &Machine, layout: Layout) -> Result<()> {
    machine.root("groupadd nixtrust")?;
    for user in USERS {
        let mut groups = vec![layout.client_groups()];
        groups.extend((user == "alice").then_some("nixtrust"));
        groups.retain(|group| !group.is_empty());
        machine.root(&format!(
            "useradd -m -s /bin/bash -G '{}' {user}; chmod 0700 /home/{user}",
            groups.join(",")
        ))?;
    }
    Ok(())
}

/// The rules of who may do what, and a machine that asks no binary cache.
fn rules(machine: &Machine) -> Result<()> {
    let rules = "\n# Rules of this machine.\ntrusted-users = root @nixtrust\nallowed-users = root alice bob carol\n\
                 sandbox = true\nsubstituters =\n";
    machine
        .shell("root", "cat >>/etc/nix/nix.conf; systemctl restart nix-daemon.service")?
        .input(rules)
        .ok()?;
    Ok(())
}

/// A profile with an old generation for everybody who may connect.
fn profiles(machine: &Machine, world: &mut World) -> Result<()> {
    for user in ["alice", "bob", "carol"] {
        for version in [1, 2] {
            let path = build(machine, user, &format!("{user}-tool-{version}"), "")?;
            machine.user(user, &format!("nix-env -i {path}"))?;
            world.live.push((format!("generation {version} of {user}'s profile"), path));
        }
        let generation = machine.user(user, "realpath ~/.nix-profile")?;
        world.live.push((format!("{user}'s profile itself"), generation));
    }
    Ok(())
}

/// What alice owns below `/nix/var/nix`, where a blind `chown -R` would take it from her.
fn per_user_directories(machine: &Machine, world: &mut World) -> Result<()> {
    for dir in ["profiles", "gcroots"] {
        machine.root(&format!("install -d -o alice -g alice -m 0755 /nix/var/nix/{dir}/per-user/alice"))?;
    }
    let direct = build(machine, "alice", "alice-direct-root", "")?;
    machine.user("alice", &format!("ln -s {direct} /nix/var/nix/gcroots/per-user/alice/direct"))?;
    world.live.push(("alice's link in her own gcroots directory".into(), direct));
    for version in [1, 2] {
        let path = build(machine, "alice", &format!("alice-work-{version}"), "")?;
        machine
            .user("alice", &format!("nix-env -p /nix/var/nix/profiles/per-user/alice/work --set {path}"))?;
        world.live.push((format!("generation {version} of a profile in alice's own directory"), path));
    }
    Ok(())
}

/// Indirect roots: links in private homes, one of them deep down, one outside any home, and one that is gone.
fn result_links(machine: &Machine, world: &mut World) -> Result<()> {
    let links = [
        ("alice", "alice-result", "~/result"),
        ("bob", "bob-result", "~/result"),
        ("bob", "bob-deep", "~/src/project/build/out/result"),
        ("carol", "carol-result", "~/private/result"),
        ("carol", "carol-tmp", "/var/tmp/carol/result"),
    ];
    for (user, name, link) in links {
        let path =
            machine.user(user, &format!("mkdir -p $(dirname {link}); {} -o {link}", nix_build(name, "")))?;
        machine.user(user, &format!("test $(readlink {link}) = {path}; chmod 0700 $(dirname {link})"))?;
        world.live.push((format!("{user}'s {link}"), path));
    }
    let path = machine
        .user("carol", &format!("{} -o ~/old-result; rm ~/old-result", nix_build("carol-gone", "")))?;
    world.garbage.push(("what a link that carol removed pointed to".into(), path));
    Ok(())
}

/// root's profile, a link of its own, and one that was put into `gcroots` by hand.
fn roots_of_root(machine: &Machine, world: &mut World) -> Result<()> {
    let tool = build(machine, "root", "root-tool-1", "")?;
    machine.root(&format!("nix-env -i {tool}"))?;
    world.live.push(("root's profile".into(), tool));
    let result = machine.root(&format!("{} -o /root/work/result", nix_build("root-result", "")).replacen(
        "nix-build",
        "mkdir -p work; nix-build",
        1,
    ))?;
    world.live.push(("root's result".into(), result));
    let by_hand = build(machine, "root", "root-by-hand", "")?;
    machine.root(&format!("ln -s {by_hand} /nix/var/nix/gcroots/by-hand"))?;
    world.live.push(("a link in gcroots made by hand".into(), by_hand));
    Ok(())
}

fn garbage(machine: &Machine, world: &mut World) -> Result<()> {
    for user in ["root", "alice", "bob", "carol"] {
        let path = build(machine, user, &format!("{user}-garbage"), "")?;
        world.garbage.push((format!("built by {user} without a link"), path));
    }
    let added = machine.root("echo unused >unused.txt; nix-store --add unused.txt; rm unused.txt")?;
    world.garbage.push(("added by root".into(), added));
    let added =
        machine.user("bob", &format!("echo u >u.txt; {NIX} store add --mode flat u.txt; rm u.txt"))?;
    world.garbage.push(("added by bob".into(), added));
    Ok(())
}

/// Paths that a process will refer to by its program, an open file, its environment, its directory.
fn held(machine: &Machine, world: &mut World) -> Result<()> {
    let copy_busybox = "$bb cp $bb $out/bin/busybox";
    let cases: [(&str, &str, &str, &str); 4] = [
        ("bob", "held-by-exe", copy_busybox, "exec PATH/bin/busybox sleep 1000000"),
        ("carol", "held-by-fd", "", "exec 7<PATH/bin/held-by-fd; exec sleep 1000000"),
        ("alice", "held-by-environment", "", "HELD=PATH exec sleep 1000000"),
        ("bob", "held-by-cwd", "", "cd PATH/bin; exec sleep 1000000"),
    ];
    for (user, name, script, hold) in cases {
        let path = build(machine, user, name, script)?;
        world.held.push(Held { user: user.into(), script: hold.replace("PATH", &path), path });
    }
    Ok(())
}
