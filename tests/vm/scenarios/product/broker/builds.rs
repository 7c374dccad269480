//! Builds through the broker.

use super::{UIDS, build, daemon, gate, nix_build, nothing_left, ready, with_broker};
use crate::harness::machine::Machine;
use crate::harness::nixcmd::{self, Trust};
use anyhow::{Context, Result, ensure};

type Part = fn(&Machine) -> Result<()>;

#[test]
fn builds() -> Result<()> {
    let machine = with_broker("broker")?;
    // One machine for all, and every part is tried, whatever came of the others.
    let parts: [(&str, Part); 8] = [
        ("a good one", a_good_one),
        ("kinds", kinds),
        ("refused", refused),
        ("two at once", two_at_once),
        ("cancelled", cancelled),
        ("the broker dies", the_broker_dies),
        ("behind the gate", behind_the_gate),
        ("safe mode", safe_mode),
    ];
    let mut failures = String::new();
    for (name, part) in parts {
        if let Err(error) = part(&machine) {
            failures.push_str(&format!("{name}: {error:#}\n"));
        }
    }
    ensure!(failures.is_empty(), "{failures}");
    Ok(())
}

fn a_good_one(machine: &Machine) -> Result<()> {
    let outcome = build(machine, "good")?.exits(0)?;
    let out = outcome.stdout.trim();
    for words in ["words to stdout", "words to stderr"] {
        ensure!(outcome.stderr.contains(words), "not in the log: {words}: {outcome}");
    }
    let read = |name: &str| machine.root(&format!("cat {out}/{name}"));
    ensure!(read("text")? == "dependency\ntext that came in a file");
    ensure!(read("where")? == "/build /build /build", "{}", read("where")?);
    let uid: u32 = read("uid")?.parse()?;
    ensure!(UIDS.contains(&uid), "built as {uid}");
    ensure!(read("groups")? == "41000", "groups {}", read("groups")?);
    let status = read("status")?;
    for expected in ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
        ensure!(status.contains(expected), "{expected}: {status}");
    }
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).context("no SigIgn")?;
    // SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGCHLD.
    let ours = [1, 2, 13, 15, 17].iter().fold(0, |set, signal| set | 1_u64 << (signal - 1));
    ensure!(u64::from_str_radix(ignored, 16)? & ours == 0, "ignores {ignored}");
    // The fourth is that of ls itself.
    ensure!(read("files")? == "0\n1\n2\n3", "open files: {}", read("files")?);
    ensure!(read("root")? == "build\ndev\netc\nnix\nproc\ntmp", "sees {}", read("root")?);
    let seen = read("store")?;
    ensure!(seen.lines().count() == 4 && seen.contains("-dep") && seen.contains("-tools"), "sees {seen}");
    let strangers = read("processes")?;
    ensure!(!strangers.lines().any(|line| line == "1"), "sees process 1");
    ensure!(read("net")? != machine.root("readlink /proc/1/ns/net")?, "has the machine's network");
    let succeeded = machine.root(&format!("cat {out}/succeeded 2>/dev/null || true"))?;
    ensure!(succeeded.is_empty(), "a build could: {succeeded}");
    ensure!(read("refusals")?.contains("Read-only file system"), "{}", read("refusals")?);
    let owners = machine.root(&format!(
        "find {out} -printf '%u:%g %m\\n' | sort -u; find /nix/store -user 41000 -o -user 41001"
    ))?;
    ensure!(
        owners.lines().all(|line| line.starts_with("nix:nix ") && !line.ends_with("755")),
        "owners: {owners}"
    );
    machine.user("bob", &format!("nix-store --verify-path {out} $({})", nix_build("dep")))?;
    // Built again, under another name, and compared.
    machine
        .user("bob", &format!("{} --check", nix_build("good.dev")))
        .map(drop)
        .or_else(|error| ensure_differs_only_in_what_it_looked_at(&error))?;
    nothing_left(machine)
}

/// `good` notes its uid, so a second build of it may differ; what matters is that it was built and compared.
fn ensure_differs_only_in_what_it_looked_at(error: &anyhow::Error) -> Result<()> {
    ensure!(error.to_string().contains("may not be deterministic"), "{error}");
    Ok(())
}

fn kinds(machine: &Machine) -> Result<()> {
    let structured = build(machine, "structured")?.exits(0)?;
    let text = machine.root(&format!("cat {}", structured.stdout.trim()))?;
    ensure!(text.contains(r#""list":["a","b"]"#), "{text}");
    // Only a fixed output has the network.
    let fixed = build(machine, "fixed")?.exits(0)?;
    let network = machine.root("readlink /proc/1/ns/net")?;
    ensure!(fixed.stderr.contains(&format!("network {network}")), "{fixed}");
    build(machine, "leftover")?.exits(0)?;
    let left = machine.try_root("pgrep -f 'sleep 4714$'")?;
    ensure!(left.status == 1, "what a build left running lives on: {left}");
    nothing_left(machine)
}

/// Each fails, and says why; nothing of it is in the store.
fn refused(machine: &Machine) -> Result<()> {
    for (name, why) in [
        ("failing", "exit code 7"),
        ("failing", "some last words"),
        ("signalled", "exit code 137"),
        ("no-output", "failed to produce output path"),
        ("set-uid", "-set-uid/su has a set-user-id or set-group-id bit"),
        ("set-gid", "-set-gid has a set-user-id or set-group-id bit"),
        ("hard-link", "-hard-link has a hard link outside of the outputs"),
        ("foreign-link", "ross-device link"),
        ("pipe", "-pipe/pipe is neither a file nor a directory nor a symlink"),
        ("deep", "lies more than 128 directories deep"),
        ("builtin", "Nix runs those itself when their system is 'builtin'"),
        ("outside", "builder '/usr/bin/id' is no program of an input"),
        ("recursive", "recursive-nix"),
        ("uid-range", "uid-range"),
    ] {
        let outcome = build(machine, name)?;
        ensure!(outcome.status != 0 && outcome.stderr.contains(why), "expected '{why}': {outcome}");
        let made = machine
            .root(&format!("ls -d /nix/store/????????????????????????????????-{name} 2>/dev/null || true"))?;
        ensure!(made.is_empty(), "{name} left {made}");
    }
    nothing_left(machine)
}

fn two_at_once(machine: &Machine) -> Result<()> {
    let outcome = machine.user("bob", &format!("{} -A slow-too -j 4", nix_build("slow")))?;
    let uids: Vec<_> =
        outcome.lines().map(|path| machine.root(&format!("cat {path}"))).collect::<Result<_>>()?;
    ensure!(uids.len() == 2 && uids[0] != uids[1], "at the same time: {uids:?}");
    Ok(())
}

fn cancelled(machine: &Machine) -> Result<()> {
    for end in ["kill $client", "kill -9 $(pgrep -u nix -f 'nix-build-broker client')"] {
        endless(machine, end)?;
        nothing_left(machine)?;
    }
    Ok(())
}

/// Begins a build that does not end, and ends it in this way.
fn endless(machine: &Machine, end: &str) -> Result<()> {
    machine.background("bob", &format!("echo $$ >/tmp/client-$$; exec {}", nix_build("endless")))?;
    machine.root(&format!(
        "for i in $(seq 200); do pgrep -f 'sleep 4715$' >/dev/null && break; sleep 0.1; done
         pgrep -u 41000,41001,41002,41003 -f 'sleep 4715$'
         client=$(cat /tmp/client-*); rm /tmp/client-*; {end}
         for i in $(seq 100); do pgrep -f 'sleep 4715$' >/dev/null || exit 0; sleep 0.1; done; exit 1"
    ))?;
    Ok(())
}

/// Those who look after builds end them, and the next broker finds nothing in its way.
fn the_broker_dies(machine: &Machine) -> Result<()> {
    endless(machine, "kill -9 $(systemctl show -P MainPID broker.service)")?;
    machine.root("systemctl reset-failed broker.service; for i in $(seq 100); do systemctl start broker.service; sleep 0.2; systemctl is-active broker.service && exit; done; exit 1")?;
    ready(machine)?;
    // Not even those are there any more: a build that nobody looks after.
    endless(
        machine,
        "kill -9 $(pgrep -u root -x nix-build-broke); sleep 0.5; systemctl reset-failed broker.service; systemctl start broker.service",
    )?;
    ready(machine)?;
    let again = machine.try_root("/usr/local/libexec/nix-unroot/nix-build-broker serve --socket /run/other --client 5:5 --uids 41000:1 --gid 7 --work /nix/var/nix/build-broker")?;
    ensure!(again.stderr.contains("already works"), "two brokers: {again}");
    build(machine, "after")?.exits(0)?;
    nothing_left(machine)
}

/// As on a Mac: the gate decides who is who, and gives Nix these settings itself.
fn behind_the_gate(machine: &Machine) -> Result<()> {
    gate(machine, "--broker-socket /run/nix-build-broker/socket")?;
    for (user, expected) in [
        ("root", Trust::Trusted),
        ("alice", Trust::Trusted),
        ("bob", Trust::Untrusted),
        ("dave", Trust::Refused),
    ] {
        let seen = nixcmd::trust(machine, user)?;
        ensure!(seen == expected, "{user} is {seen:?}");
    }
    let status = machine.root("cat /proc/$(pgrep -o -x nix-daemon-gate)/status")?;
    ensure!(status.contains("CapPrm:\t0000000000000000"), "the gate has capabilities: {status}");
    let built = build(machine, "gated")?.exits(0)?;
    let uid: u32 = machine.root(&format!("cat {}", built.stdout.trim()))?.parse()?;
    ensure!(UIDS.contains(&uid), "built as {uid}");
    gate(machine, "")?;
    let refused = machine.try_user("bob", &format!("{} -j 1", nix_build("refused")))?;
    ensure!(refused.status != 0 && refused.stderr.contains("nothing is built on this machine"), "{refused}");
    Ok(())
}

/// Without the broker: `max-jobs = 0` is each client's to change, and then the build has the uid that owns the store. `refuse` is not.
fn safe_mode(machine: &Machine) -> Result<()> {
    let try_build = |name: &str| {
        machine.try_user(
            "bob",
            &format!("{} -j 1", crate::harness::nixcmd::nix_build(name, "$bb id -u >$out/uid")),
        )
    };
    daemon(machine, "0", "")?;
    let owner = machine.root("id -u nix")?;
    let built = try_build("unsafe")
        .and_then(|outcome| outcome.exits(0))
        .context("the reason for 'refuse' is gone")?;
    let uid = machine.root(&format!("cat {}/uid", built.stdout.trim()))?;
    ensure!(uid == owner, "built as {uid}");
    daemon(machine, "0", r#"\"refuse\""#)?;
    let refused = try_build("safe")?;
    ensure!(refused.status != 0 && refused.stderr.contains("nothing is built on this machine"), "{refused}");
    Ok(())
}
