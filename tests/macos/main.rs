//! `nix-unroot` on a simulated Mac. It is the Linux program: which system it is on, it learns from the machine.
//!
//! Needs root (mounts), and Python 3 for the stand-ins.

mod mac;

use anyhow::{Result, ensure};
use mac::{Mac, UUID};
use serde_json::{Value, json};

/// The keys of the findings about Macs.
fn keys(document: &Value) -> Vec<&str> {
    let keys =
        document["findings"].as_array().into_iter().flatten().filter_map(|finding| finding["key"].as_str());
    keys.filter(|key| key.starts_with("macos-")).collect()
}

#[test]
fn the_official_scripts_nix_is_seen() -> Result<()> {
    let document = Mac::official()?.inspect()?;
    let facts = &document["facts"];
    assert_eq!(facts["os"]["name"], "macOS 15.1 (24B83)");
    assert_eq!(facts["init"]["kind"], "launchd");
    assert_eq!(facts["flavour"]["kind"], "official-multi-user");
    assert_eq!(facts["build_users"]["members"].as_array().map(Vec::len), Some(32));
    assert_eq!(facts["nix"][0]["version"], "2.34.8");
    let volume = &facts["mac"]["volume"];
    assert_eq!((&volume["name"], &volume["uuid"]), (&json!("Nix Store"), &json!(UUID)));
    assert_eq!((&volume["owners_enabled"], &volume["encrypted"]), (&json!(true), &json!(true)));
    assert_eq!(volume["keychain_item"]["service"], UUID);
    let daemon = &facts["mac"]["jobs"][1];
    assert_eq!(
        (&daemon["label"], &daemon["pid"], &daemon["loaded"]),
        (&json!("org.nixos.nix-daemon"), &json!(412), &json!(true))
    );
    assert_eq!(keys(&document), ["macos-only-inspected", "macos-root-runs-nix"]);
    Ok(())
}

#[test]
fn a_mac_without_nix_is_seen() -> Result<()> {
    let document = Mac::clean()?.inspect()?;
    assert_eq!(document["facts"]["flavour"]["kind"], "none");
    assert_eq!(keys(&document), ["macos-only-inspected"]);
    Ok(())
}

#[test]
fn an_update_of_the_system_is_seen() -> Result<()> {
    let mut mac = Mac::official()?;
    mac.state["directory"]["/Users"]["_nixbld2"].take();
    let users = mac.state["directory"]["/Users"].as_object_mut().expect("an object");
    users.remove("_nixbld2");
    users.insert("_newsystem".to_owned(), json!({"UniqueID": ["352"], "PrimaryGroupID": ["352"]}));
    mac.state["disabled"]["org.nixos.nix-daemon"] = json!(true);
    mac.state["jobs"].as_object_mut().expect("an object").remove("org.nixos.nix-daemon");
    mac.state["volumes"]["/nix"]["GlobalPermissionsEnabled"] = json!(false);
    mac.state["keychains"] = json!({});
    mac.file("etc/zshrc", "# as Apple delivers it\n")?;
    let document = mac.inspect()?;
    assert_eq!(
        keys(&document),
        [
            "macos-only-inspected",
            "macos-owners-ignored",
            "macos-daemon-not-loaded",
            "macos-password-missing",
            "macos-shell-files-reset",
            "macos-uids-taken",
            "macos-root-runs-nix",
        ]
    );
    Ok(())
}

/// Nothing that changes a machine was made for Macs yet, so nothing is changed.
#[test]
fn what_was_not_made_for_macs_changes_nothing() -> Result<()> {
    for mac in [Mac::clean()?, Mac::official()?] {
        for words in [
            "migrate --yes --helpers /private",
            "install --yes --helpers /private --nix-archive /private/none --nix-archive-sha256 00",
            "uninstall --yes",
            "audit",
            "audit --fix --yes",
            "roots",
            "verify",
            "rollback --yes",
            "resume",
        ] {
            let output = mac.run(words)?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(matches!(output.status.code(), Some(2 | 3)), "{words}: {} {said}", output.status);
            mac.is_untouched()?;
        }
        let refused = mac.run("uninstall --yes")?;
        ensure!(refused.status.code() == Some(3), "{}", refused.status);
        ensure!(String::from_utf8_lossy(&refused.stderr).contains("does not know Macs yet"));
    }
    Ok(())
}
