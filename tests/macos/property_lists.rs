//! The property lists that are written, read by Python's plistlib and compared with launchd.plist(5).

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Result, ensure};

use crate::mac::Mac;
use crate::migrate::GO;

/// What the checker says of files of a directory.
pub fn check(directory: &Path, names: &[&str]) -> Result<Output> {
    let checker = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/macos/check_job.py");
    let paths = names.iter().map(|name| directory.join(name));
    Ok(Command::new("python3").arg("-B").arg(checker).args(paths).output()?)
}

const OURS: [&str; 3] =
    ["org.nix-unroot.build-broker.plist", "org.nix-unroot.root-scan.plist", "org.nixos.nix-daemon.plist"];

#[test]
fn every_list_that_a_migration_writes_is_one_of_launchds() -> Result<()> {
    let mac = Mac::official(2)?;
    // Variables that need escapes.
    let daemon = "Library/LaunchDaemons/org.nixos.nix-daemon.plist";
    let old = mac.read(daemon)?.replace(
        "<key>RunAtLoad</key>",
        "<key>EnvironmentVariables</key><dict><key>https_proxy</key><string>http://u:&lt;&amp;&gt;@p</string></dict><key>RunAtLoad</key>",
    );
    mac.file(daemon, &old)?;
    mac.ok(GO)?;
    let dir = tempfile::tempdir()?;
    for name in OURS {
        fs::write(dir.path().join(name), mac.read(&format!("Library/LaunchDaemons/{name}"))?)?;
    }
    let said = check(dir.path(), &OURS)?;
    ensure!(
        said.status.success(),
        "{}{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
    let text = fs::read_to_string(dir.path().join(OURS[2]))?;
    ensure!(text.contains("http://u:&lt;&amp;&gt;@p"), "{text}");
    Ok(())
}

/// The check sees what it is for.
#[test]
fn a_list_that_is_not_one_of_launchds_is_found() -> Result<()> {
    let good =
        include_str!("../../platform/macos/org.nix-unroot.root-scan.plist").replace("{{libexec_dir}}", "/l");
    let name = OURS[1];
    let dir = tempfile::tempdir()?;
    let verdict = |text: &str| -> Result<bool> {
        fs::write(dir.path().join(name), text)?;
        Ok(check(dir.path(), &[name])?.status.success())
    };
    ensure!(verdict(&good)?, "the list itself");
    for (from, to) in [
        ("<key>Label</key>", "<key>label</key>"),
        ("org.nix-unroot.root-scan</string>", "other</string>"),
        ("<integer>3600</integer>", "<string>3600</string>"),
        ("<integer>3600</integer>", "<true/>"),
        ("<integer>438</integer>", "<integer>0666</integer>"),
        ("<key>SockPathMode</key>", "<key>SocketMode</key>"),
        ("<string>/l/nix-root-scan</string>", "<string>/nix/x</string>"),
        ("<key>ExitTimeOut</key>", "<key>StartInterval</key>"),
        ("<string>/var/log/nix-unroot/root-scan.log</string>", "<string>root-scan.log</string>"),
        ("</dict>\n</plist>", "</plist>"),
        ("<string>1</string>", "<string>&</string>"),
    ] {
        ensure!(good.contains(from), "{from}");
        ensure!(!verdict(&good.replacen(from, to, 1))?, "{to} in place of {from} is not found");
    }
    Ok(())
}
