//! What is seen of a Mac.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::mac::{Mac, UUID};

/// The keys of all findings: those about Linux have no business here.
fn keys(document: &Value) -> Vec<&str> {
    document["findings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|finding| finding["key"].as_str())
        .collect()
}

#[test]
fn the_official_scripts_nix_is_seen() -> Result<()> {
    let document = Mac::official(32)?.inspect()?;
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
    let jobs = facts["mac"]["jobs"].as_array().context("jobs")?;
    let labels: Vec<_> = jobs.iter().filter_map(|job| job["label"].as_str()).collect();
    assert_eq!(labels, ["com.example.backup", "org.nixos.darwin-store", "org.nixos.nix-daemon"]);
    assert_eq!((&jobs[2]["pid"], &jobs[2]["loaded"]), (&json!(412), &json!(true)));
    assert_eq!(keys(&document), ["macos-untried", "root-shell-sources-nix", "macos-root-runs-nix"]);
    Ok(())
}

#[test]
fn a_mac_without_nix_is_seen() -> Result<()> {
    let document = Mac::clean()?.inspect()?;
    assert_eq!(document["facts"]["flavour"]["kind"], "none");
    assert_eq!(keys(&document), ["macos-untried", "nix-missing"]);
    Ok(())
}

#[test]
fn an_update_of_the_system_is_seen() -> Result<()> {
    let mac = Mac::official(32)?;
    mac.change_state(|state| {
        let users = state["directory"]["/Users"].as_object_mut().context("an object")?;
        users.remove("_nixbld2");
        users.insert("_newsystem".to_owned(), json!({"UniqueID": ["352"], "PrimaryGroupID": ["352"]}));
        state["disabled"]["org.nixos.nix-daemon"] = json!(true);
        state["jobs"].as_object_mut().context("an object")?.remove("org.nixos.nix-daemon");
        state["volumes"][1]["GlobalPermissionsEnabled"] = json!(false);
        state["keychains"] = json!({});
        Ok(())
    })?;
    mac.file("etc/zshrc", "# as Apple delivers it\n")?;
    assert_eq!(
        keys(&mac.inspect()?),
        [
            "macos-owners-ignored",
            "macos-untried",
            "macos-daemon-not-loaded",
            "macos-password-missing",
            "macos-shell-files-reset",
            "macos-uids-taken",
            "macos-root-runs-nix",
        ]
    );
    Ok(())
}

/// What was not made for Macs yet is refused, and changes nothing.
#[test]
fn what_was_not_made_for_macs_changes_nothing() -> Result<()> {
    for mac in [Mac::clean()?, Mac::official(2)?] {
        let before = mac.manifest()?;
        for words in [
            "migrate --yes --helpers /private/helpers",
            "install --yes --untried-on-macs --helpers /private/helpers --nix-archive /private/none --nix-archive-sha256 00",
            "audit",
            "audit --fix --yes",
            "roots",
        ] {
            let output = mac.run(words)?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(matches!(output.status.code(), Some(2 | 3)), "{words}: {} {said}", output.status);
            before.assert_same(&mac.manifest()?, words)?;
        }
        let refused = mac.run("audit")?;
        ensure!(refused.status.code() == Some(3), "{}", refused.status);
        ensure!(String::from_utf8_lossy(&refused.stderr).contains("does not know Macs yet"));
    }
    Ok(())
}
