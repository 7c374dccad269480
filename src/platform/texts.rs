//! The embedded texts: files below `platform/`, one directory for each operating system, and what is the same on both.

use anyhow::{Result, bail};

/// The text of an embedded template.
///
/// # Errors
/// When there is none of that name.
pub fn text(name: &str) -> Result<&'static str> {
    Ok(match name {
        "profile.sh" => include_str!("../../platform/profile.sh"),
        "linux/extra.conf" => include_str!("../../platform/linux/extra.conf"),
        "linux/profile.fish" => include_str!("../../platform/linux/profile.fish"),
        "linux/shellrc" => include_str!("../../platform/linux/shellrc"),
        "linux/nix.conf" => include_str!("../../platform/linux/nix.conf"),
        "linux/tmpfiles.conf" => include_str!("../../platform/linux/tmpfiles.conf"),
        "linux/nix-daemon.socket" => include_str!("../../platform/linux/nix-daemon.socket"),
        "linux/nix-daemon-gate.service" => include_str!("../../platform/linux/nix-daemon-gate.service"),
        "linux/apparmor" => include_str!("../../platform/linux/apparmor"),
        "linux/nix-root-scan.socket" => include_str!("../../platform/linux/nix-root-scan.socket"),
        "linux/nix-root-scan.service" => include_str!("../../platform/linux/nix-root-scan.service"),
        "linux/root-environment.conf" => include_str!("../../platform/linux/root-environment.conf"),
        "linux/start-nix-daemon" => include_str!("../../platform/linux/start-nix-daemon"),
        "linux/nix-root-scan.timer" => include_str!("../../platform/linux/nix-root-scan.timer"),
        "macos/build.sb" => include_str!("../../platform/macos/build.sb"),
        "macos/nix.conf" => include_str!("../../platform/macos/nix.conf"),
        "macos/org.nix-unroot.build-broker.plist" => {
            include_str!("../../platform/macos/org.nix-unroot.build-broker.plist")
        }
        "macos/org.nix-unroot.root-scan.plist" => {
            include_str!("../../platform/macos/org.nix-unroot.root-scan.plist")
        }
        "macos/org.nixos.darwin-store.plist" => {
            include_str!("../../platform/macos/org.nixos.darwin-store.plist")
        }
        "macos/org.nixos.darwin-store.encrypted.plist" => {
            include_str!("../../platform/macos/org.nixos.darwin-store.encrypted.plist")
        }
        "macos/org.nixos.nix-daemon.plist" => include_str!("../../platform/macos/org.nixos.nix-daemon.plist"),
        "macos/shellrc" => include_str!("../../platform/macos/shellrc"),
        _ => bail!("there is no template {name:?}"),
    })
}
