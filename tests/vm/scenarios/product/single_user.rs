//! A store that a person owns becomes one for everybody, and that person's again.

use super::install::{ARCHIVE, build_as_alice, from_archive, machine_of};
use super::interrupted::killed_at;
use super::target::{assert_migrated, assert_nothing_of_root, subuids};
use crate::harness::layout::single_user;
use crate::harness::machine::Machine;
use crate::harness::manifest::Manifest;
use crate::harness::nixcmd::build;
use crate::harness::{image, populate, product};
use anyhow::{Result, ensure};

/// A machine on which alice owns the store and has used it: generations of two profiles, a link, a channel, garbage. What must
/// outlive every collection, and what must not.
pub fn alices(test: &str) -> Result<(Machine, Vec<String>, String)> {
    let machine = machine_of(image::without_nix()?, test)?;
    populate::packages(&machine)?;
    single_user::install(&machine, "alice", ARCHIVE)?;
    machine.root("useradd -m -s /bin/bash bob; chmod 0700 /home/alice /home/bob")?;
    let mut live = Vec::new();
    for tool in ["hammer", "saw"] {
        let path = build(&machine, "alice", tool, "")?;
        machine.user("alice", &format!("nix-env -i {path}"))?;
        live.push(path);
    }
    machine.user("alice", "mkdir -p /nix/var/nix/{profiles,gcroots}/per-user/alice")?;
    for (name, link) in [
        ("work", "nix-env -p /nix/var/nix/profiles/per-user/alice/work --set PATH"),
        ("direct", "ln -s PATH /nix/var/nix/gcroots/per-user/alice/direct"),
        ("result", "nix-store --realise PATH --add-root ~/result"),
    ] {
        let path = build(&machine, "alice", name, "")?;
        machine.user("alice", &link.replace("PATH", &path))?;
        live.push(path);
    }
    machine.root("mkdir -p /opt/channel; echo '{ }' >/opt/channel/default.nix; tar -C /opt -czf /opt/channel.tar.gz channel")?;
    machine.user("alice", "nix-channel --add file:///opt/channel.tar.gz mine; nix-channel --update")?;
    live.push(machine.user("alice", "realpath ~/.nix-defexpr/channels/mine/..")?);
    live.push(machine.user("alice", "realpath ~/.nix-profile")?);
    let garbage = build(&machine, "alice", "garbage", "")?;
    // A build without a link leaves a root to a temporary file that is gone, which Nix removes when it looks for roots.
    machine.user("alice", "nix-store --optimise; nix-store --gc --print-roots >/dev/null")?;
    let owners = machine.root("find /nix ! -user alice")?;
    ensure!(owners.is_empty(), "not alice's: {owners}");
    Ok((machine, live, garbage))
}

#[test]
fn a_persons_store_becomes_everybodys_and_comes_back() -> Result<()> {
    let (machine, live, garbage) = alices("single")?;
    let before = Manifest::take(&machine)?;
    let seen = product::run(&machine, "inspect")?;
    ensure!(seen.stdout.contains("single-user, for alice"), "{seen}");
    product::ok(&machine, "migrate --yes")?;
    product::ok(&machine, "rollback --yes")?;
    before.assert_same(&Manifest::take(&machine)?, "after a migration and its rollback")?;

    // At the last of them Nix has given up the space that it reserves, and nothing else is left to clear away.
    let instants = [
        "do:take-directory-3:applied",
        "do:reown-state:applied",
        "do:share-nix:applied",
        "do:verify:2:paths-deleted",
    ];
    for instant in instants {
        killed_at(&machine, instant, "migrate --yes")?;
        product::ok(&machine, "rollback --yes")?;
        before
            .assert_same(&Manifest::take(&machine)?, &format!("after a kill at {instant} and a rollback"))?;
    }
    killed_at(&machine, "do:reown-store:applied", "migrate --yes")?;
    product::ok(&machine, "resume --yes")?;
    assert_migrated(&machine)?;
    product::ok(&machine, "verify")?;
    alice_has_what_she_had(&machine)?;
    everybody_builds(&machine)?;
    let all = live.join(" ");
    machine.user(
        "alice",
        &format!(
            "nix-store --gc; ls -d {all} >/dev/null; test ! -e {garbage}; nix-store --check-validity {all}"
        ),
    )?;

    let kept = build(&machine, "alice", "since", "")?;
    machine.user("alice", &format!("nix-env -i {kept}"))?;
    product::ok(&machine, "rollback --yes")?;
    let others = machine.root("find /nix ! -user alice")?;
    ensure!(others.is_empty(), "after the rollback not alice's: {others}");
    let said = machine.user("alice", "since; nix-store --verify --check-contents; nix-store --gc; saw")?;
    ensure!(said.starts_with("since") && said.ends_with("saw"), "{said}");
    Ok(())
}

/// The same profile with the same generations, which she can go on with, and her channel.
fn alice_has_what_she_had(machine: &Machine) -> Result<()> {
    let said = machine.user(
        "alice",
        "hammer; saw; work=/nix/var/nix/profiles/per-user/alice/work/bin/work; $work; ~/result/bin/result",
    )?;
    ensure!(said == "hammer\nsaw\nwork\nresult", "{said}");
    let generations = machine.user("alice", "nix-env --list-generations | wc -l; command -v nix-env")?;
    ensure!(generations == "3\n/home/alice/.nix-profile/bin/nix-env", "{generations}");
    machine.user(
        "alice",
        "nix-channel --update; nix-env --rollback; not command -v saw; nix-env --switch-generation 3; saw",
    )?;
    machine.user("alice", "nix-env -p /nix/var/nix/profiles/per-user/alice/other --set $(realpath ~/result); rm /nix/var/nix/profiles/per-user/alice/other*")?;
    let refused = machine
        .try_user("alice", "touch /nix/store/x /nix/var/nix/db/x /nix/var/nix/profiles/default-9-link")?;
    ensure!(refused.status != 0 && refused.stderr.matches("Permission denied").count() == 3, "{refused}");
    Ok(())
}

fn everybody_builds(machine: &Machine) -> Result<()> {
    let (path, uid) = build_as_alice(machine, "as-alice")?;
    ensure!(subuids(machine)?.contains(&uid), "alice's build ran as {uid}");
    ensure!(machine.root(&format!("stat -c %U {path}"))? == "nix");
    let bobs = machine.user("bob", "command -v nix-build")?;
    ensure!(bobs == "/nix/var/nix/profiles/default/bin/nix-build", "bob has {bobs}");
    machine.user("bob", &format!("nix-store --check-validity {path}"))?;
    build(machine, "bob", "bobs", "")?;
    assert_nothing_of_root(machine)
}

/// The Nix may also come from an archive.
#[test]
fn a_persons_store_gets_another_nix_along() -> Result<()> {
    let (machine, live, _) = alices("single-archive")?;
    let before = Manifest::take(&machine)?;
    product::ok(&machine, &format!("migrate --yes {}", from_archive(&machine)?))?;
    product::ok(&machine, "verify")?;
    machine.user("bob", &format!("nix-store --check-validity {}", live.join(" ")))?;
    product::ok(&machine, "rollback --yes")?;
    before.assert_same(&Manifest::take(&machine)?, "after a migration with an archive and its rollback")
}

/// What alice may have prepared: each is refused, and changes nothing anywhere.
#[test]
fn what_the_person_prepared_leads_nowhere() -> Result<()> {
    let (machine, live, _) = alices("single-hostile")?;
    machine.user("alice", "echo mine >~/mine; mkdir /tmp/shared")?;
    let file = format!("{}/bin/hammer", live[0]);
    // Each: what alice does, what a migration says, what undoes that again (as root).
    for (plant, message, undo) in [
        ("ln ~/mine /nix/store/.links/mine", "have names outside it", "rm /nix/store/.links/mine"),
        ("chmod 0666 FILE", "can be written to by others", "chmod 0555 FILE"),
        ("setfacl -m u:alice:rwx FILE", "can be written to by others", "setfacl -b FILE; chmod 0555 FILE"),
        ("chmod 1777 /nix/var/nix/db", "can be written to by others", "chmod 0755 /nix/var/nix/db"),
        (
            "mv /nix/var/log ~/log; ln -s /etc /nix/var/log",
            "/nix/var/log",
            "rm /nix/var/log; mv /home/alice/log /nix/var/log",
        ),
        (
            "mv /nix/var/nix/db ~/db; ln -s ~/db /nix/var/nix/db",
            "db.sqlite",
            "rm /nix/var/nix/db; mv /home/alice/db /nix/var/nix/db",
        ),
    ] {
        machine.user("alice", &plant.replace("FILE", &file))?;
        refused(&machine, plant, message)?;
        machine.root(&undo.replace("FILE", &file))?;
    }
    machine.background(
        "alice",
        &format!("chmod u+w {file}; exec 7>>{file}; chmod u-w {file}; exec sleep 1000000"),
    )?;
    machine.root("for i in $(seq 100); do pgrep -fx 'sleep 1000000' && exit 0; sleep 0.1; done; exit 1")?;
    refused(&machine, "a file held open", "can still write to")?;
    machine.root("pkill -fx 'sleep 1000000'")?;
    product::ok(&machine, "migrate --yes")?;
    assert_migrated(&machine)
}

fn refused(machine: &Machine, plant: &str, message: &str) -> Result<()> {
    let before = Manifest::take(machine)?;
    let outcome = product::run(machine, "migrate --yes")?;
    let said = outcome.stdout.clone() + &outcome.stderr;
    ensure!(
        matches!(outcome.status, 1 | 3) && said.contains(message),
        "{plant}: {message:?} is missing: {outcome}"
    );
    before.assert_same(&Manifest::take(machine)?, &format!("after {plant} and a migration that was refused"))
}
