//! The gate gives every client the answer that the root daemon gave: the same questions are asked of the one on a
//! root-owned machine, and of the other on the same machine after its migration.

mod cases;

use super::{migrate, ready};
use crate::harness::layout::Layout;
use crate::harness::library;
use crate::harness::machine::{Machine, quote};
use anyhow::{Context, Result, ensure};
use cases::Case;
use std::collections::BTreeMap;
use std::time::Duration;

/// Where the questions lie in the machine.
const DIR: &str = "/opt/trust";
const ASK: &str = include_str!("../../../fixtures/trust/ask");
/// A socket that everybody reaches, for a root daemon of the test's own.
const ROOT_SOCKET: &str = "/run/trust/socket";
const GATE_SOCKET: &str = "/nix/var/nix/daemon-socket/socket";

/// Who asks: a short name for the table, and the options of setpriv(1).
const PEERS: [(&str, &str); 16] = [
    ("root", "--reuid=0 --regid=0 --clear-groups"),
    // in the member list of `wheel`, of `crowd` and of the name service's `nssgroup`
    ("alice", "--reuid=alice --regid=alice --init-groups"),
    ("bob", "--reuid=bob --regid=bob --init-groups"),
    // primary group `staff2`
    ("dave", "--reuid=dave --regid=staff2 --init-groups"),
    // what the process is in counts for the group that it runs with alone, not for further ones
    ("carol:wheel", "--reuid=carol --regid=wheel --clear-groups"),
    ("carol+wheel", "--reuid=carol --regid=carol --groups=wheel"),
    ("4711:100", "--reuid=4711 --regid=100 --clear-groups"),
    ("4712:4712", "--reuid=4712 --regid=4712 --clear-groups"),
    // an account whose name is the number 4711
    ("'4711'", "--reuid=5001 --regid=5001 --clear-groups"),
    // an id with two names
    ("two-names", "--reuid=5002 --regid=5002 --clear-groups"),
    ("nixbld1", "--reuid=nixbld1 --regid=nixbld --clear-groups"),
    ("bob:nixbld", "--reuid=bob --regid=nixbld --clear-groups"),
    ("nixbld1:users", "--reuid=nixbld1 --regid=users --clear-groups"),
    ("nobody", "--reuid=65534 --regid=65534 --clear-groups"),
    // a primary group with a huge member list
    ("bob:crowd", "--reuid=bob --regid=5005 --clear-groups"),
    // known to a name service only
    ("nssuser", "--reuid=7001 --regid=7001 --clear-groups"),
];

#[test]
fn the_gate_answers_as_the_root_daemon_did() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "trust")?;
    let cases = cases::all();
    ensure!(cases.len() >= 60, "only {} cases", cases.len());
    accounts(&machine)?;
    name_service(&machine, 7001)?;
    install(&machine, &cases)?;
    let before = ask(&machine, "root")?;
    migrate(&machine)?;
    let after = ask(&machine, "gate")?;
    compare(&cases, &before, &after)
}

/// Where the gate is stricter than Nix, it refuses everybody: Nix passes over what it cannot read in silence, and knows
/// build users by their group only.
#[test]
fn the_gate_refuses_builds_and_what_it_cannot_read() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "strict")?;
    migrate(&machine)?;
    open_to_all(&machine)?;
    machine
        .root(&format!("install -D nix-unroot/nix-unroot {DIR}/probe; cp /etc/nix/nix.conf {DIR}/conf"))?;
    let greet = |id: u32| -> Result<String> {
        machine.root(&format!(
            "setpriv --reuid={id} --regid={id} --clear-groups {DIR}/probe internal-handshake {GATE_SOCKET}"
        ))
    };
    machine.root("printf 'trusted-users = *\\nallowed-users = *\\n' >/etc/nix/nix.conf")?;
    let range = super::target::subuids(&machine)?;
    let all = [range.start - 1, range.start, range.start + 70_000, range.end - 1, range.end];
    for id in all {
        let said = greet(id)?;
        let expected = if range.contains(&id) { "refused" } else { "trusted" };
        ensure!(said.starts_with(expected), "uid {id} of builds {range:?}: {said}");
    }
    for script in [
        "chmod 0600 nix.conf",
        "echo 'include extra.conf' >>nix.conf; install -m 0600 /dev/null extra.conf",
        "echo '!include extra.conf' >>nix.conf; install -m 0600 /dev/null extra.conf",
        "echo '!include extra' >>nix.conf; mkdir extra",
        "echo '!include extra/conf' >>nix.conf; mkdir -m 0700 extra; touch extra/conf",
        "mkdir -p ../xdg/nix; install -m 0600 /dev/null ../xdg/nix/nix.conf",
    ] {
        machine.root(&format!(
            "rm -rf /etc/xdg/nix /etc/nix/extra*; install -m 0644 {DIR}/conf /etc/nix/nix.conf"
        ))?;
        ensure!(greet(0)?.starts_with("trusted"), "before `{script}`");
        machine.root(&format!("cd /etc/nix; {script}"))?;
        for id in [0, 1000] {
            let said = greet(id)?;
            ensure!(said.contains("could not be started"), "after `{script}` to uid {id}: {said}");
        }
        let log = machine.root("journalctl -b --no-pager -n 20 -o cat -u nix-daemon-gate.service")?;
        ensure!(log.contains("has to be able to read it") || log.contains("directory"), "the journal: {log}");
    }
    Ok(())
}

/// Accounts with everything odd about them that Nix's rules can meet.
fn accounts(machine: &Machine) -> Result<()> {
    machine.root(
        "groupadd wheel; usermod -aG wheel alice; groupadd staff2; usermod -g staff2 dave
         echo '4711:x:5001:5001::/:/bin/false' >>/etc/passwd
         echo 'first:x:5002:5002::/:/bin/false' >>/etc/passwd
         echo 'second:x:5002:5002::/:/bin/false' >>/etc/passwd
         echo 'one:x:5002:' >>/etc/group
         echo 'another:x:5002:bob' >>/etc/group
         # lists an id, a name that is nobody's, one with blanks, and bob by his second group
         echo 'odd:x:5003:4712,nosuch, bob ,second,@wheel,*' >>/etc/group
         echo 'nobodys:x:5004:' >>/etc/group",
    )?;
    Ok(())
}

/// Users and groups that no file names; the user has this uid.
pub(super) fn name_service(machine: &Machine, uid: u32) -> Result<()> {
    let text = include_str!("../../../fixtures/trust/nss.rs").replace("7001", &uid.to_string());
    library::install(machine, &text, "/usr/lib/libnss_nutest.so.2")?;
    machine.root(&format!(
        "mv /usr/lib/libnss_nutest.so.2 /usr/lib/*-linux-gnu/
         sed -Ei 's/^(passwd|group):.*/\\1: files nutest/' /etc/nsswitch.conf
         test \"$(id -un {uid}) $(getent group nssgroup)\" = 'nssuser nssgroup::7002:alice,nssuser'"
    ))?;
    Ok(())
}

/// Puts the probe, the peers and a directory for each case into the machine.
fn install(machine: &Machine, cases: &[Case]) -> Result<()> {
    let mut script = format!("install -D nix-unroot/nix-unroot {DIR}/probe\nchmod 0755 {DIR}\n");
    let peers: Vec<_> = PEERS.iter().map(|(_, options)| *options).collect();
    let mut put = |path: String, text: &str| {
        script += &format!("mkdir -p $(dirname {path}); printf %s {} >{path}\n", quote(text));
    };
    put(format!("{DIR}/peers"), &(peers.join("\n") + "\n"));
    for (number, case) in cases.iter().enumerate() {
        let dir = format!("{DIR}/{number:03}");
        put(format!("{dir}/etc/nix/empty"), "");
        for (file, text) in &case.files {
            put(format!("{dir}/etc/{file}"), text);
        }
        if let Some(text) = &case.environment {
            put(format!("{dir}/environment"), text);
        }
    }
    machine.write_file("/root/install-cases", "0755", script)?;
    machine.root("bash -eu ./install-cases")?;
    machine.write_file(&format!("{DIR}/ask"), "0755", ASK)
}

/// Lets every user reach the daemon's socket, which in this layout is for a group's members only.
fn open_to_all(machine: &Machine) -> Result<()> {
    machine.root(&format!("chmod 0755 $(dirname {GATE_SOCKET}); chmod 0666 {GATE_SOCKET}"))?;
    Ok(())
}

/// The answers by case: a letter for each peer.
fn ask(machine: &Machine, who: &str) -> Result<BTreeMap<usize, String>> {
    machine.root("rm -rf /root/etc-nix; cp -a /etc/nix /root/etc-nix; mkdir -p /etc/xdg")?;
    let socket = if who == "root" {
        machine.root("systemctl stop nix-daemon.service nix-daemon.socket; mkdir -p /run/trust")?;
        ROOT_SOCKET
    } else {
        open_to_all(machine)?;
        GATE_SOCKET
    };
    let started = std::time::Instant::now();
    let said = machine
        .shell("root", &format!("{DIR}/ask {DIR} {socket} {who}"))?
        .timeout(Duration::from_secs(300))
        .ok()?;
    println!("asked the {who} daemon in {:.1} s", started.elapsed().as_secs_f32());
    machine.root("rm -rf /etc/nix /etc/xdg/nix; mv /root/etc-nix /etc/nix")?;
    if who == "root" {
        machine.root("systemctl start nix-daemon.socket")?;
    }
    let answer = |line: &str| -> Option<(usize, String)> {
        let (number, letters) = line.split_once(' ')?;
        Some((number.parse().ok()?, letters.to_owned()))
    };
    said.lines().map(|line| answer(line).with_context(|| format!("a strange answer: {line}"))).collect()
}

/// Prints the table, and fails when a single answer differs.
fn compare(cases: &[Case], before: &BTreeMap<usize, String>, after: &BTreeMap<usize, String>) -> Result<()> {
    println!("T trusted, u untrusted, - refused, ! no daemon starts; peers in order:");
    println!("{}", PEERS.map(|(name, _)| name).join(" "));
    let (mut different, mut counts) = (Vec::new(), BTreeMap::new());
    for (number, case) in cases.iter().enumerate() {
        let (old, new) = (before.get(&number), after.get(&number));
        let (Some(old), Some(new)) = (old, new) else { anyhow::bail!("no answer to case {number}") };
        let letters = old.split(' ').collect::<Vec<_>>();
        ensure!(letters.len() == PEERS.len() && !old.contains('?'), "{}: {old}", case.title);
        for letter in letters {
            *counts.entry(letter.to_owned()).or_insert(0) += 1;
        }
        println!("{number:3} {:48} {old}{}", case.title, if old == new { "" } else { "  DIFFERS" });
        if old != new {
            different.push(format!("{}\nroot: {old}\ngate: {new}\n{:?}", case.title, case.files));
        }
    }
    println!("{} cases x {} peers: {counts:?}, {} differ", cases.len(), PEERS.len(), different.len());
    ensure!(different.is_empty(), "the gate answers differently:\n{}", different.join("\n"));
    // A table in which everybody is refused would prove nothing.
    for letter in ["T", "u", "-", "!"] {
        ensure!(counts.get(letter).is_some_and(|count| *count >= 30), "too few {letter}: {counts:?}");
    }
    Ok(())
}

/// The one source of the two settings that the gate does not have: root's own `nix.conf`. The root daemon obeys it, and a migration
/// says beforehand that it will count no more.
#[test]
fn the_nix_conf_of_root_counts_no_more_and_that_is_said() -> Result<()> {
    use crate::harness::{nixcmd, product};
    let (machine, _) = ready(Layout::Debian, "root-conf")?;
    machine.root(
        "mkdir -p .config/nix; echo 'extra-trusted-users = bob' >.config/nix/nix.conf; systemctl restart nix-daemon.service",
    )?;
    ensure!(nixcmd::trust(&machine, "bob")? == nixcmd::Trust::Trusted, "the root daemon does not read it");
    let plan = product::run(&machine, "inspect --json")?;
    ensure!(plan.stdout.contains("root-nix-conf"), "{plan}");
    migrate(&machine)?;
    ensure!(nixcmd::trust(&machine, "bob")? == nixcmd::Trust::Untrusted, "the gate reads root's files");
    ensure!(nixcmd::trust(&machine, "alice")? == nixcmd::Trust::Trusted, "alice lost her trust");
    Ok(())
}
