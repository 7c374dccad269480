//! Installing Nix on a Mac that has none, and removing it again.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::mac::{self, KEYCHAIN, Mac};
use crate::property_lists::check;

const REMOVE: &str = "uninstall --yes --untried-on-macs";

/// A Mac without Nix on which somebody left build users: a few, which saves time.
pub fn with_build_users() -> Result<(Mac, String)> {
    let mac = Mac::clean()?;
    let install = mac.archive()?;
    mac.change_state(|state| mac::add_build_users(state, 2))?;
    Ok((mac, install))
}

/// Nix's volume, as the stand-ins know it.
fn volume(mac: &Mac) -> Result<Value> {
    let state = mac.state()?;
    let volumes = state["volumes"].as_array().context("volumes")?;
    volumes
        .iter()
        .find(|volume| volume["VolumeName"] == "Nix Store")
        .cloned()
        .context("there is no volume for Nix")
}

fn password(mac: &Mac) -> Result<String> {
    let items = mac.state()?["keychains"][KEYCHAIN].as_array().cloned().unwrap_or_default();
    let item = items.iter().find(|item| item["account"] == "Nix Store").context("no password")?;
    Ok(item["password"].as_str().context("no password")?.to_owned())
}

fn assert_installed(mac: &Mac) -> Result<()> {
    let volume = volume(mac)?;
    assert_eq!((&volume["MountPoint"], &volume["GlobalPermissionsEnabled"]), (&json!("/nix"), &json!(true)));
    let line = format!(
        "UUID={} /nix apfs rw,noauto,nobrowse,nosuid,noatime,owners\n",
        volume["VolumeUUID"].as_str().unwrap_or_default()
    );
    assert_eq!(mac.read("etc/fstab")?, format!("# as Apple delivers it\n{line}"));
    assert_eq!(mac.read("etc/synthetic.conf")?, "nix\n");
    let dir = tempfile::tempdir()?;
    let list = "org.nixos.darwin-store.plist";
    std::fs::write(dir.path().join(list), mac.read(&format!("Library/LaunchDaemons/{list}"))?)?;
    let said = check(dir.path(), &[list])?;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    let state = mac.state()?;
    assert_eq!(state["directory"]["/Users"]["_nixbld2"]["UniqueID"], json!(["352"]));
    let document = mac.inspect()?;
    assert_eq!(document["facts"]["flavour"]["kind"], "unprivileged");
    assert_eq!(document["facts"]["mac"]["volume"]["name"], "Nix Store");
    assert_eq!(mac.shell("readlink nix/var/nix/profiles/default")?, "default-1-link\n");
    assert_eq!(mac.shell("stat -c %u:%g nix/store/*-nix-2.34.8")?, "400:400\n");
    ensure!(
        mac.read("etc/zshrc")?.contains("/usr/local/libexec/nix-unroot/profile.sh"),
        "shells do not find it"
    );
    Ok(())
}

#[test]
fn it_is_installed_survives_a_restart_and_goes_without_a_trace() -> Result<()> {
    let mac = Mac::clean()?;
    let install = mac.archive()?;
    let before = mac.manifest()?;
    mac.ok(&install)?;
    assert_installed(&mac)?;
    assert_eq!(volume(&mac)?["FileVault"], json!(true));
    let state = mac.state()?;
    let user = &state["directory"]["/Users"]["_nixbld32"];
    assert_eq!(
        (&user["UniqueID"], &user["PrimaryGroupID"], &user["IsHidden"]),
        (&json!(["382"]), &json!(["350"]), &json!(["1"]))
    );
    assert_eq!(state["directory"]["/Groups"]["nixbld"]["GroupMembership"].as_array().map(Vec::len), Some(32));
    ensure!(mac.ok(&install)?.contains("nothing to do"));

    // The job unlocks and mounts it with the password from the keychain.
    mac.restart()?;
    assert_installed(&mac)?;

    mac.ok(REMOVE)?;
    mac.restart()?;
    before.assert_same(&mac.manifest()?, "after installing and removing")?;
    ensure!(mac.ok(REMOVE)?.contains("nothing to do"));
    Ok(())
}

#[test]
fn its_password_is_in_no_journal_and_no_command_line() -> Result<()> {
    let (mac, install) = with_build_users()?;
    mac.ok(&install)?;
    let password = password(&mac)?;
    ensure!(
        password.len() == 64 && password.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{} characters",
        password.len()
    );
    assert_eq!(volume(&mac)?["Passphrase"], json!(password.clone()));
    let calls = mac.calls()?;
    ensure!(
        calls.contains("diskutil apfs addVolume disk3 APFS Nix Store -stdinpassphrase -nomount"),
        "{calls}"
    );
    ensure!(!calls.contains(&password), "everybody could read it in a list of processes");
    let found =
        mac.shell(&format!("grep -rlF {password} var/lib/nix-unroot Library etc usr/local var/log || true"))?;
    assert_eq!(found, "", "it was written down");
    Ok(())
}

#[test]
fn without_file_vault_the_volume_is_not_encrypted() -> Result<()> {
    let (mac, install) = with_build_users()?;
    mac.change_state(|state| {
        state["volumes"][0]["FileVault"] = json!(false);
        Ok(())
    })?;
    mac.change_state(|state| {
        state["disabled"]["org.nixos.darwin-store"] = json!(true);
        Ok(())
    })?;
    let before = mac.manifest()?;
    mac.ok(&install)?;
    assert_installed(&mac)?;
    assert_eq!(volume(&mac)?["FileVault"], json!(false));
    ensure!(password(&mac).is_err(), "a password for nothing");
    mac.restart()?;
    assert_installed(&mac)?;
    mac.ok("rollback --yes")?;
    mac.restart()?;
    before.assert_same(&mac.manifest()?, "after a rollback")
}

/// What somebody else left is used or named, and never removed.
#[test]
fn what_was_there_before_stays() -> Result<()> {
    let (mac, install) = with_build_users()?;
    mac.change_state(|state| {
        let items = state["keychains"][KEYCHAIN].as_array_mut().context("items")?;
        items.push(json!({"account": "Nix Store", "service": "Nix Store", "label": "x", "password": "of an older one"}));
        Ok(())
    })?;
    mac.file("etc/synthetic.conf", "run\tprivate/run\nnix\n")?;
    let before = mac.manifest()?;
    mac.ok(&install)?;
    assert_eq!(volume(&mac)?["Passphrase"], json!("of an older one"));
    mac.ok("rollback --yes")?;
    mac.restart()?;
    mac.shell("rmdir nix")?;
    before.assert_same(&mac.manifest()?, "after a rollback")?;

    mac.change_state(|state| {
        let mut left = state["volumes"][0].clone();
        left["VolumeName"] = json!("Nix Store");
        left["VolumeUUID"] = json!("00000000-AAAA-BBBB-CCCC-000000000000");
        left["DeviceIdentifier"] = json!("disk3s9");
        left["MountPoint"] = json!("");
        state["volumes"].as_array_mut().context("volumes")?.push(left);
        Ok(())
    })?;
    let before = mac.manifest()?;
    let output = mac.run(&install)?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(
        output.status.code() == Some(3)
            && said.contains("a volume for Nix is there already")
            && said.contains("disk3s9"),
        "{said}"
    );
    before.assert_same(&mac.manifest()?, "after a refusal")
}

/// What this tool made goes with its own rollback, store and all; who says that the store is to stay is told so, and nothing goes.
#[test]
fn a_store_that_it_made_does_not_go_with_keep_store() -> Result<()> {
    let (mac, install) = with_build_users()?;
    mac.ok(&install)?;
    let before = mac.manifest()?;
    for words in ["--yes", "--dry-run"] {
        let output = mac.run(&format!("uninstall --untried-on-macs --keep-store {words}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.code() == Some(3)
                && said.contains("--keep-store")
                && said.contains("nix copy --all"),
            "{words}: {} {said}",
            output.status
        );
        ensure!(!said.contains("/nix: --keep-store"), "it says that the store stays: {said}");
        before.assert_same(&mac.manifest()?, words)?;
    }
    Ok(())
}

/// A volume that gets the same name while an installation is under way is another one's.
#[test]
fn another_volume_of_the_same_name_is_not_taken_for_the_new_one() -> Result<()> {
    let (mac, install) = with_build_users()?;
    ensure!(mac.killed_at("do:create-volume:applied", &install)?, "the instant was not reached");
    let ours = volume(&mac)?["VolumeUUID"].clone();
    let theirs = left_over(&mac, "disk5", "")?;
    mac.ok("resume --yes")?;
    let ours = ours.as_str().context("a UUID")?;
    for file in ["etc/fstab", "Library/LaunchDaemons/org.nixos.darwin-store.plist"] {
        let text = mac.read(file)?;
        ensure!(text.contains(ours) && !text.contains(OTHER), "{file}: {text}");
    }
    mac.ok("rollback --yes")?;
    let state = mac.state()?;
    assert_eq!(state["volumes"].as_array().context("volumes")?[1..], [theirs]);
    Ok(())
}

/// Somebody deleted the volume: there is nothing on it to undo, and all the rest is undone.
#[test]
fn an_installation_whose_volume_is_gone_is_undone() -> Result<()> {
    let (mac, install) = with_build_users()?;
    let before = mac.manifest()?;
    ensure!(mac.killed_at("do:install-profile:done", &install)?, "it was not killed");
    let uuid = volume(&mac)?["VolumeUUID"].as_str().context("a UUID")?.to_owned();
    mac.shell(&format!("chroot . /usr/bin/diskutil apfs deleteVolume {uuid}"))?;
    // As the system's own mount points are.
    mac.shell("mount -t tmpfs -o ro none nix")?;
    let refused = mac.run("resume --yes")?;
    let told = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && told.contains("rollback undoes the run without it"), "{refused:?}");
    let said = mac.ok("rollback --yes")?;
    ensure!(said.contains("the volume Nix Store is not there"), "{said}");
    mac.shell("umount nix")?;
    mac.restart()?;
    before.assert_same(&mac.manifest()?, "after a rollback without the volume")
}

const OTHER: &str = "00000000-AAAA-BBBB-CCCC-000000000000";

/// Adds a volume that is called as Nix's is, before all but the system's, so that it is the first that has the name.
fn left_over(mac: &Mac, container: &str, mount_point: &str) -> Result<Value> {
    let mut left = mac.state()?["volumes"][0].clone();
    for (key, value) in [
        ("VolumeName", "Nix Store"),
        ("VolumeUUID", OTHER),
        ("DeviceIdentifier", &format!("{container}s2")),
        ("MountPoint", mount_point),
        ("APFSContainerReference", container),
    ] {
        left[key] = json!(value);
    }
    mac.change_state(|state| {
        state["volumes"].as_array_mut().context("volumes")?.insert(1, left.clone());
        Ok(())
    })?;
    Ok(left)
}

/// A clone of another Mac's disk, say: it is nobody's business to delete what lies there.
#[test]
fn a_volume_on_another_disk_or_mounted_elsewhere_is_not_removed() -> Result<()> {
    let (mac, install) = with_build_users()?;
    let without = mac.state()?;
    for (container, mount_point) in
        [("disk5", ""), ("disk3", "/Volumes/Nix Store"), ("disk5", "/Volumes/Nix Store")]
    {
        let left = left_over(&mac, container, mount_point)?;
        let output = mac.run(&install)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.code() == Some(3) && said.contains(&format!("{container}s2")), "{said}");
        ensure!(!said.contains("uninstall removes it"), "{said}");
        let shown = mac.ok("uninstall --dry-run --untried-on-macs")?;
        ensure!(
            shown.contains(&format!("{container}s2")) && !shown.contains("deletes the volume"),
            "{shown}"
        );
        mac.ok(REMOVE)?;
        let state = mac.state()?;
        assert_eq!(state["volumes"][1], left, "{container} {mount_point}");
        mac.change_state(|state| {
            state["volumes"] = without["volumes"].clone();
            state["directory"] = without["directory"].clone();
            Ok(())
        })?;
    }
    Ok(())
}

/// What is left of build users that are not whole is told before anything is changed.
#[test]
fn what_is_left_of_build_users_is_told_first() -> Result<()> {
    for part in ["/Users", "/Groups"] {
        let (mac, install) = with_build_users()?;
        mac.change_state(|state| {
            let records = state["directory"][part].as_object_mut().context("records")?;
            records.retain(|name, _| !name.contains("nixbld"));
            Ok(())
        })?;
        if part == "/Users" {
            mac.change_state(|state| {
                state["directory"]["/Groups"]["nixbld"]["GroupMembership"] = json!([]);
                Ok(())
            })?;
        }
        let before = mac.manifest()?;
        let output = mac.run(&install)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let command =
            if part == "/Users" { "dscl . -delete /Groups/nixbld" } else { "dscl . -delete /Users/_nixbld1" };
        ensure!(output.status.code() == Some(3) && said.contains(command), "{}: {said}", output.status);
        before.assert_same(&mac.manifest()?, "after a refusal")?;
        mac.shell(&format!("chroot . /usr/bin/{command}"))?;
        if part == "/Groups" {
            mac.shell("chroot . /usr/bin/dscl . -delete /Users/_nixbld2")?;
        }
        mac.ok(&format!("{install} --dry-run"))?;
    }
    Ok(())
}
