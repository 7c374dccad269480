//! `--init none`: a container without systemd: a PID namespace of its own, in which a shell is the first process and no
//! /run/systemd is seen.

use super::install::{clean, expression, from_archive};
use crate::harness::exec::Outcome;
use crate::harness::layout::Layout;
use crate::harness::machine::{Machine, quote};
use crate::harness::manifest::Manifest;
use crate::harness::product;
use anyhow::{Result, ensure};

const START: &str = "/usr/local/libexec/nix-unroot/start-nix-daemon";
const ROOTS_SOCKET: &str = "/nix/var/nix/gc-roots-socket/socket";

/// Runs a command in the container, which the first call makes.
fn inside(machine: &Machine, user: &str, script: &str) -> Result<Outcome> {
    let command = quote(&format!("runuser -u {user} -- sh -lc {}", quote(script)));
    machine.try_root(&format!("nsenter --target $(cat /run/init) --mount --pid -- sh -c {command}"))
}

fn ok(machine: &Machine, user: &str, script: &str) -> Result<String> {
    inside(machine, user, script)?.ok()
}

/// Its first process is a shell that reaps what loses its parent, as a container's has to.
fn make_container(machine: &Machine) -> Result<()> {
    machine.background(
        "root",
        "exec unshare --pid --mount --fork --mount-proc sh -c 'mount -t tmpfs none /run/systemd; while :; do sleep 1; done'",
    )?;
    machine.root(
        "for i in $(seq 100); do P=$(pgrep -P $(pgrep -xo unshare) -x sh) && break; sleep 0.1; done; echo $P >/run/init
         for i in $(seq 100); do [ -e /proc/$P/root/run/systemd/system ] || exit 0; sleep 0.1; done; exit 1",
    )?;
    Ok(())
}

/// Does what the program says: runs the one that starts the daemon, and waits for its sockets.
fn start(machine: &Machine) -> Result<()> {
    machine.background(
        "root",
        &format!("exec nsenter --target $(cat /run/init) --mount --pid -- {START} >/run/start.log 2>&1"),
    )?;
    machine.root(&format!("for i in $(seq 100); do [ -S {ROOTS_SOCKET} ] && [ -S /nix/var/nix/daemon-socket/socket ] && exit; sleep 0.1; done; cat /run/start.log; exit 1"))?;
    Ok(())
}

#[test]
fn an_installation_is_started_as_it_says_and_goes_without_a_trace() -> Result<()> {
    let machine = clean("without-init")?;
    make_container(&machine)?;
    let before = Manifest::of_tree(&machine)?;
    let options = from_archive(&machine)?;
    let program = format!("{}/nix-unroot", product::DIR);
    let refused = inside(&machine, "root", &format!("{program} install --yes {options}"))?.exits(3)?;
    ensure!(refused.stdout.contains("give --init none"), "{refused}");
    let refused = product::run(&machine, &format!("install --yes --init none {options}"))?.exits(2)?;
    ensure!(refused.stderr.contains("systemd runs this machine"), "{refused}");
    before.assert_same(&Manifest::of_tree(&machine)?, "after refusals")?;

    let installed =
        inside(&machine, "root", &format!("{program} install --yes --init none {options}"))?.exits(0)?;
    ensure!(installed.stderr.contains(&format!("run {START} as root")), "{installed}");
    // It was started for the proof, and is gone again.
    ok(&machine, "root", "! pgrep -x 'nix-daemon-gate|nix-root-scan'")?;

    start(&machine)?;
    let build = |name: &str, link: &str| {
        ok(&machine, "alice", &format!("cd; nix-build {link} -E '{}'", expression(name)))
    };
    let kept = build("kept", "--out-link kept")?;
    let garbage = build("garbage", "--no-out-link")?;
    let uid: u32 = machine.root(&format!("cat {kept}"))?.parse()?;
    ensure!(super::target::subuids(&machine)?.contains(&uid), "the build ran as {uid}");
    ok(&machine, "root", &format!("{program} verify && {program} doctor"))?;

    let capabilities = |name: &str| {
        machine.root(&format!("grep -hE '^(Uid|CapPrm|CapBnd|CapEff|NoNewPrivs):' /proc/$(pgrep -xo {name})/status | tr '\\n' ' '"))
    };
    let (gate, scanner) = (capabilities("nix-daemon-gate")?, capabilities("nix-root-scan")?);
    for (seen, set) in [(&gate, "c0"), (&scanner, "80004")] {
        ensure!(!seen.contains("Uid:\t0") && seen.contains("NoNewPrivs:\t1"), "{seen}");
        for kind in ["CapPrm", "CapBnd"] {
            ensure!(seen.contains(&format!("{kind}:\t{set:0>16}")), "{kind} is not {set}: {seen}");
        }
    }
    let socket = machine.root(&format!("stat -c '%U:%G %a' {ROOTS_SOCKET}"))?;
    ensure!(socket == "root:nix 660", "the roots socket is {socket}");

    // Without a scanner nothing is collected; it is started again, and then what is kept stays.
    machine.root("kill -STOP $(pgrep -xo start-nix-daemo); pkill -x nix-root-scan; sleep 1")?;
    let closed = inside(&machine, "alice", "nix-store --gc")?;
    ensure!(closed.status != 0, "collected without a scanner: {closed}");
    machine.root(&format!("test -e {kept}; test -e {garbage}; kill -CONT $(pgrep -xo start-nix-daemo)"))?;
    machine
        .root("for i in $(seq 100); do pgrep -x nix-root-scan && sleep 1 && exit; sleep 0.1; done; exit 1")?;
    ok(&machine, "alice", "nix-store --gc")?;
    machine.root(&format!("test -e {kept}; ! test -e {garbage}"))?;

    ok(&machine, "root", &format!("{program} rollback --yes"))?;
    // What was started by hand sees within a second that its gate is gone.
    machine.root(
        "sleep 3; not pgrep -r R,S,D -ax 'nix-daemon-gate|nix-root-scan|start-nix-daemo'; rm -f /home/alice/kept",
    )?;
    before.assert_same(
        &Manifest::of_tree(&machine)?,
        "after an installation without an init system and its rollback",
    )
}

/// The official script's Nix, whose root daemon nobody starts here.
#[test]
fn another_nix_is_migrated_and_removed_and_both_are_undone() -> Result<()> {
    let base = Layout::Official.base()?;
    let mut machine = Machine::copy_of(&base.join("tree"), "without-init-official")?;
    drop(base);
    machine.boot()?;
    machine.root("useradd -m -s /bin/bash alice")?;
    machine.user("alice", "true")?;
    product::install(&machine)?;
    let never = Manifest::of_tree(&machine)?;
    Layout::Official.install(&machine)?;
    machine.root("systemctl stop nix-daemon.socket nix-daemon.service")?;
    make_container(&machine)?;
    let installed = Manifest::of_tree(&machine)?;
    let program = format!("{}/nix-unroot", product::DIR);

    // Killed in its proof, and the container stopped with all that runs there: nobody serves when the next one goes on.
    let killed = "NIX_UNROOT_CHECKPOINT=do:verify:1:path-added";
    let migrate = format!("{killed} {program} migrate --yes --init none >/dev/null 2>&1");
    inside(&machine, "root", &migrate)?.exits(137)?;
    machine.root("ls /nix/store | grep nix-unroot-verify; kill -9 $(cat /run/init); while pgrep -x nix-daemon-gate; do sleep 0.1; done")?;
    make_container(&machine)?;
    let migrated = inside(&machine, "root", &format!("{program} resume --yes"))?.exits(0)?;
    machine.root("! ls /nix/store | grep nix-unroot-verify")?;
    ensure!(migrated.stderr.contains(&format!("run {START} as root")), "{migrated}");
    start(&machine)?;
    // Its block is in the files of bash and zsh.
    let with_nix = |script: &str| format!("PATH=/nix/var/nix/profiles/default/bin:$PATH; {script}");
    let build = format!("nix-build --no-out-link -E '{}'", expression("migrated"));
    let built = ok(&machine, "alice", &with_nix(&build))?;
    let uid: u32 = machine.root(&format!("cat {built}"))?.parse()?;
    ensure!(super::target::subuids(&machine)?.contains(&uid), "the build ran as {uid}");
    // What was built would stay. A deletion takes a reserve of room of Nix's own along, which the next connection makes again.
    let tidy = format!(
        "nix-store --delete {built} $(nix-store --query --deriver {built}); rm -rf ~/.cache ~/.local/state/nix; \
         nix-store --query --references /nix/var/nix/profiles/default"
    );
    ok(&machine, "alice", &with_nix(&tidy))?;
    machine.root("find /nix/var/log/nix/drvs -mindepth 1 -newer /run/init -delete")?;
    ok(&machine, "root", &format!("{program} rollback --yes"))?;
    installed.assert_same(&Manifest::of_tree(&machine)?, "after a migration and its rollback")?;

    // The store goes last: until then everything comes back.
    let killed = "NIX_UNROOT_CHECKPOINT=do:remove-accounts-1:done";
    inside(&machine, "root", &format!("{killed} {program} uninstall --yes"))?.exits(137)?;
    ok(&machine, "root", &format!("! getent passwd nixbld1 && {program} rollback --yes"))?;
    installed.assert_same(
        &Manifest::of_tree(&machine)?,
        "after a removal that was interrupted and its rollback",
    )?;

    ok(&machine, "root", &format!("{program} uninstall --yes --purge-homes"))?;
    never.assert_same(&Manifest::of_tree(&machine)?, "after a removal")
}
