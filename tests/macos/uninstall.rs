//! Removing Nix from a Mac.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::mac::{KEYCHAIN, Mac, is_around};

const GO: &str = "uninstall --yes --untried-on-macs";
const KEEP: &str = "uninstall --yes --untried-on-macs --keep-store";

/// Fails unless everything of Nix is gone, and nothing of others.
fn assert_gone(mac: &Mac) -> Result<()> {
    for path in [
        "Library/LaunchDaemons/org.nixos.nix-daemon.plist",
        "Library/LaunchDaemons/org.nixos.darwin-store.plist",
        "etc/nix",
        "etc/synthetic.conf",
        "etc/zshrc.backup-before-nix",
        "nix/store",
        "nix/var",
    ] {
        ensure!(!mac.has(path), "/{path} is left");
    }
    assert_eq!(mac.read("etc/zshrc")?, "# of Apple\n");
    assert_eq!(mac.read("etc/fstab")?, "# as Apple delivers it\n");
    ensure!(mac.has("Library/LaunchDaemons/com.example.backup.plist"), "another's job is gone");
    let state = mac.state()?;
    let names = |kind: &str| -> Vec<String> {
        state["directory"][kind].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names("/Users"), ["alice", "nobody", "root"]);
    assert_eq!(names("/Groups"), ["staff", "wheel"]);
    let labels: Vec<_> = state["jobs"].as_object().context("jobs")?.keys().collect();
    assert_eq!(labels, ["com.example.backup"]);
    assert_eq!(state["volumes"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        state["keychains"][KEYCHAIN],
        json!([{"account": "alice", "service": "mail", "label": "mail"}])
    );
    Ok(())
}

#[test]
fn nothing_is_left_of_nix_and_all_of_the_rest() -> Result<()> {
    let mac = Mac::official(32)?;
    mac.ok(GO)?;
    assert_gone(&mac)?;
    assert_eq!(mac.inspect()?["facts"]["flavour"]["kind"], "none");
    ensure!(mac.ok(GO)?.contains("nothing to do"));
    Ok(())
}

#[test]
fn it_is_refused_until_it_is_agreed_to_by_name() -> Result<()> {
    let mac = Mac::official(2)?;
    let before = mac.manifest()?;
    let output = mac.run("uninstall --yes")?;
    ensure!(output.status.code() == Some(3), "{}", output.status);
    ensure!(String::from_utf8_lossy(&output.stdout).contains("simulated Macs only"), "{output:?}");
    let shown = mac.ok("uninstall --dry-run --untried-on-macs")?;
    for word in [
        "org.nixos.nix-daemon",
        "Nix Store",
        "/etc/synthetic.conf",
        "cannot be undone",
        "com.example.backup.plist",
    ] {
        ensure!(shown.contains(word), "{word} is not shown:\n{shown}");
    }
    before.assert_same(&mac.manifest()?, "after a refusal and a dry run")
}

#[test]
fn who_keeps_the_volume_busy_is_named() -> Result<()> {
    let mac = Mac::official(2)?;
    let before = mac.manifest()?;
    let shell = json!([{"pid": 4242, "command": "zsh", "file": "/nix/store"}]);
    mac.change_state(|state| {
        state["open_files"] = shell.clone();
        Ok(())
    })?;
    let output = mac.run(GO)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.code() == Some(3) && said.contains("process 4242 (zsh) uses /nix/store"), "{said}");
    mac.change_state(|state| {
        state["open_files"] = json!([]);
        Ok(())
    })?;
    before.assert_same(&mac.manifest()?, "after a refusal")?;

    // Busy only when it comes to the last step: then the password stays, and the run goes on when the volume is free.
    mac.change_state(|state| {
        state["busy"] = json!(true);
        Ok(())
    })?;
    let output = mac.run(GO)?;
    ensure!(output.status.code() == Some(4), "{}: {output:?}", output.status);
    ensure!(mac.state()?["keychains"][KEYCHAIN].as_array().map(Vec::len) == Some(2), "the password is gone");
    ensure!(mac.has("nix/store"), "half of the store is gone");
    mac.change_state(|state| {
        state["busy"] = json!(false);
        Ok(())
    })?;
    mac.ok("resume --yes")?;
    assert_gone(&mac)
}

#[test]
fn what_can_be_undone_is_undone_exactly() -> Result<()> {
    let mac = Mac::official(3)?;
    let before = mac.manifest()?;
    mac.ok(KEEP)?;
    let state = mac.state()?;
    ensure!(mac.has("nix/store") && mac.has("etc/synthetic.conf"), "the store, or what mounts it, is gone");
    ensure!(state["jobs"].get("org.nixos.darwin-store").is_some(), "the job that mounts it is gone");
    ensure!(
        state["jobs"].get("org.nixos.nix-daemon").is_none() && !mac.has("etc/nix"),
        "nothing was removed"
    );
    mac.ok("rollback --yes")?;
    before.assert_same(&mac.manifest()?, "after a rollback")
}

#[test]
fn somebody_elses_account_of_the_same_name_is_not_overwritten() -> Result<()> {
    let mac = Mac::official(3)?;
    mac.ok(KEEP)?;
    mac.change_state(|state| {
        state["directory"]["/Users"]["_nixbld2"] = json!({"UniqueID": ["777"], "PrimaryGroupID": ["20"]});
        Ok(())
    })?;
    let output = mac.run("rollback --yes")?;
    ensure!(!output.status.success());
    ensure!(String::from_utf8_lossy(&output.stderr).contains("/Users/_nixbld2 anew"), "{output:?}");
    assert_eq!(mac.state()?["directory"]["/Users"]["_nixbld2"]["UniqueID"], json!(["777"]));
    Ok(())
}

#[test]
fn a_removal_that_dies_at_every_instant_arrives_there_and_back() -> Result<()> {
    let mac = Mac::official(2)?;
    let before = mac.manifest()?;
    let there = mac.instants(KEEP)?;
    let removed = mac.manifest()?;
    let back = mac.instants("rollback --yes")?;
    before.assert_same(&mac.manifest()?, "after an undisturbed removal and rollback")?;
    let (there, back): (Vec<_>, Vec<_>) = (
        there.into_iter().filter(|instant| is_around(instant)).collect(),
        back.into_iter().filter(|instant| is_around(instant)).collect(),
    );
    ensure!(there.len() > 25 && back.len() > 15, "{} instants there, {} back", there.len(), back.len());

    for (index, instant) in there.iter().enumerate() {
        let killed = mac.killed_at(instant, if index == 0 { KEEP } else { "resume --yes" })?;
        ensure!(killed, "{instant} was not reached");
    }
    mac.ok("resume --yes")?;
    removed
        .without_times()
        .assert_same(&mac.manifest()?.without_times(), "after a removal that died at every instant")?;
    for instant in &back {
        ensure!(mac.killed_at(instant, "rollback --yes")?, "{instant} was not reached");
    }
    mac.ok("rollback --yes")?;
    before.assert_same(&mac.manifest()?, "after a removal that died at every instant, there and back")
}

#[test]
fn a_removal_that_dies_inside_of_a_step_is_undone_exactly() -> Result<()> {
    let mac = Mac::official(2)?;
    let before = mac.manifest()?;
    let inside: Vec<_> = mac.instants(KEEP)?.into_iter().filter(|instant| !is_around(instant)).collect();
    mac.ok("rollback --yes")?;
    ensure!(inside.len() > 40, "{} instants", inside.len());
    // A sample of them, another one of each kind of step.
    let wanted = if std::env::var_os("NIX_UNROOT_LONG").is_some() { inside.len() } else { 16 };
    for instant in inside.iter().step_by(inside.len().div_ceil(wanted)) {
        ensure!(mac.killed_at(instant, KEEP)?, "{instant} was not reached");
        mac.ok("rollback --yes")?;
        before.assert_same(&mac.manifest()?, &format!("killed at {instant} and rolled back"))?;
    }
    Ok(())
}

#[test]
fn a_deletion_that_dies_is_finished() -> Result<()> {
    for part in ["captured", "recorded", "1:command-inside", "2:command-alone", "3:command-ended", "applied"]
    {
        let mac = Mac::official(2)?;
        ensure!(mac.killed_at(&format!("do:delete-volume-1:{part}"), GO)?, "{part} was not reached");
        mac.ok("resume --yes")?;
        assert_gone(&mac)?;
    }
    Ok(())
}
