//! Removing Nix from a Mac.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::mac::{KEYCHAIN, Mac, UUID};

pub const GO: &str = "uninstall --yes --untried-on-macs";
pub const KEEP: &str = "uninstall --yes --untried-on-macs --keep-store";

/// Fails unless everything of Nix is gone, and nothing of others.
pub fn assert_gone(mac: &Mac) -> Result<()> {
    for path in [
        "Library/LaunchDaemons/org.nixos.nix-daemon.plist",
        "Library/LaunchDaemons/org.nixos.darwin-store.plist",
        "etc/nix",
        "etc/synthetic.conf",
        "etc/zshrc.backup-before-nix",
        "nix/store",
        "nix/var",
        "var/root/.nix-channels",
        "var/root/.nix-defexpr",
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

/// A Mac on which nobody ever subscribed root to a channel: what goes from homes goes for good.
pub fn without_channels(builders: u32) -> Result<Mac> {
    let mac = Mac::official(builders)?;
    mac.shell("rm -r var/root/.nix-channels var/root/.nix-defexpr")?;
    Ok(mac)
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
    let mac = without_channels(3)?;
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
    let mac = without_channels(3)?;
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

/// Determinate's installer: other jobs, a comment in fstab, another name for the password, a block in zshenv, and programs of its own.
#[test]
fn determinates_nix_goes_as_well() -> Result<()> {
    let mac = Mac::official(2)?;
    for (old, new) in [
        ("org.nixos.nix-daemon", "systems.determinate.nix-daemon"),
        ("org.nixos.darwin-store", "systems.determinate.nix-store"),
    ] {
        mac.shell(&format!("rm Library/LaunchDaemons/{old}.plist"))?;
        mac.change_state(|state| {
            state["jobs"].as_object_mut().context("jobs")?.remove(old);
            Ok(())
        })?;
        mac.job(new, "/usr/local/bin/determinate-nixd of /nix")?;
    }
    mac.job("systems.determinate.nix-installer.nix-hook", "/nix/nix-installer repair")?;
    mac.change_state(|state| {
        let items = state["keychains"][KEYCHAIN].as_array_mut().context("items")?;
        items[1] =
            json!({"account": "Nix Store", "service": "Nix Store", "label": "disk3 encryption password"});
        Ok(())
    })?;
    let uuid = UUID.to_lowercase();
    mac.file(
        "etc/fstab",
        &format!(
            "# as Apple delivers it\nUUID={uuid} /nix apfs rw,noatime,noauto,nobrowse,nosuid,owners # Added by the Determinate Nix Installer\n"
        ),
    )?;
    let ssh =
        "# Set up Nix only on SSH connections\n# See: x\nif true; then\n    . '/nix/x'\nfi\n# End Nix\n";
    mac.file("etc/zshenv", &format!("\n{ssh}\n# somebody's\n"))?;
    for path in
        ["nix/receipt.json", "nix/nix-installer", "usr/local/bin/determinate-nixd", "etc/nix/nix.custom.conf"]
    {
        mac.file(path, "x\n")?;
    }
    mac.shell("rm etc/zshrc.backup-before-nix")?;
    mac.ok(GO)?;
    assert_gone(&mac)?;
    ensure!(mac.read("etc/zshenv")?.trim() == "# somebody's", "{}", mac.read("etc/zshenv")?);
    ensure!(!mac.has("usr/local/bin/determinate-nixd"), "its daemon is left");
    Ok(())
}

#[test]
fn nix_darwin_has_to_go_first() -> Result<()> {
    let mac = Mac::official(2)?;
    mac.job("org.nixos.activate-system", "/nix/store/x/activate")?;
    let before = mac.manifest()?;
    let output = mac.run(GO)?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(
        output.status.code() == Some(3) && said.contains("darwin-uninstaller"),
        "{}: {said}",
        output.status
    );
    before.assert_same(&mac.manifest()?, "after a refusal")
}

#[test]
fn a_volume_that_is_not_mounted_goes_as_well() -> Result<()> {
    let mac = Mac::official(2)?;
    mac.shell("rm Library/LaunchDaemons/org.nixos.darwin-store.plist")?;
    mac.restart()?;
    assert_eq!(mac.inspect()?["facts"]["mac"]["unmounted"]["uuid"], UUID);
    mac.ok(GO)?;
    assert_gone(&mac)?;
    mac.restart()?;
    ensure!(!mac.has("nix"), "/nix is left after a restart");
    Ok(())
}

#[test]
fn what_was_migrated_goes_as_well() -> Result<()> {
    let mac = Mac::official(2)?;
    mac.ok("migrate --yes --untried-on-macs --helpers /private/helpers")?;
    mac.ok(GO)?;
    assert_gone(&mac)?;
    for path in ["usr/local/libexec/nix-unroot", "var/db/nix-daemon", "var/log/nix-unroot"] {
        ensure!(!mac.has(path), "/{path} is left");
    }
    assert_eq!(mac.state()?["excluded"], json!([]));
    Ok(())
}

/// Each installation's password has the same account; the service tells whose it is.
#[test]
fn the_password_of_another_volume_stays() -> Result<()> {
    let other =
        json!({"account": "Nix Store", "service": "00000000-AAAA-BBBB-CCCC-000000000000", "label": "x"});
    let mac = Mac::official(2)?;
    mac.change_state(|state| {
        state["keychains"][KEYCHAIN].as_array_mut().context("items")?.insert(0, other.clone());
        Ok(())
    })?;
    assert_eq!(mac.inspect()?["facts"]["mac"]["volume"]["keychain_item"]["service"], UUID);
    mac.change_state(|state| {
        state["keychains"][KEYCHAIN].as_array_mut().context("items")?.pop();
        Ok(())
    })?;
    assert_eq!(mac.inspect()?["facts"]["mac"]["volume"]["keychain_item"], json!(null));
    mac.ok(GO)?;
    assert_eq!(mac.state()?["keychains"][KEYCHAIN][0], other);
    Ok(())
}

/// Somebody deleted the volume of a migrated Mac: the rest goes, and it is told that the volume was not there.
#[test]
fn a_migration_whose_volume_is_gone_has_a_way_out() -> Result<()> {
    let mac = Mac::official(2)?;
    mac.ok("migrate --yes --untried-on-macs --helpers /private/helpers")?;
    mac.shell("chroot . /usr/bin/diskutil apfs deleteVolume Nix\\ Store && rm -rf private/volumes/*")?;
    let before = mac.manifest()?;
    for words in ["rollback --yes", &format!("{GO} --keep-store")] {
        let output = mac.run(words)?;
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(!output.status.success() && said.contains("connect"), "{words}: {said}");
        before.assert_same(&mac.manifest()?, words)?;
    }
    let said = mac.ok(GO)?;
    ensure!(said.contains(UUID) && said.contains("not there"), "{said}");
    for path in ["usr/local/libexec/nix-unroot", "var/db/nix-daemon", "etc/nix", "nix/store", "nix/var"] {
        ensure!(!mac.has(path), "/{path} is left");
    }
    let users = &mac.state()?["directory"]["/Users"];
    ensure!(users.get("_nix").is_none() && users.get("_nixbld1").is_none(), "{users}");
    assert_eq!(mac.read("etc/fstab")?, "# as Apple delivers it\n");
    ensure!(mac.ok(GO)?.contains("nothing to do"));
    Ok(())
}
