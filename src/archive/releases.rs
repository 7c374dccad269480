//! The releases whose digests this tool knows: `plans/releases.toml`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::types::{NixVersion, Sha256Digest};

/// A release of Nix for one kind of machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its version.
    pub version: NixVersion,
    /// Where its archive is.
    pub url: String,
    /// The archive's digest.
    pub sha256: Sha256Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pinned {
    version: NixVersion,
    url: String,
    sha256: BTreeMap<String, Sha256Digest>,
}

/// The release for a Nix system such as `x86_64-linux`; `None` when there is none for it.
///
/// # Errors
/// Never, unless `plans/releases.toml` of this build is not in its form.
pub fn release_for(system: &str) -> Result<Option<Release>> {
    let pinned: Pinned = toml::from_str(include_str!("../../plans/releases.toml"))
        .context("this tool's list of releases is not in its form")?;
    let Some(sha256) = pinned.sha256.get(system).cloned() else { return Ok(None) };
    let url = pinned.url.replace("{version}", &pinned.version.to_string()).replace("{system}", system);
    Ok(Some(Release { version: pinned.version, url, sha256 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_release_can_ask_a_root_scanner_and_is_fetched_safely() {
        for system in ["x86_64-linux", "aarch64-linux", "aarch64-darwin"] {
            let release = release_for(system).unwrap().unwrap();
            assert!(release.version.at_least(NixVersion::FIRST_WITHOUT_CVE_2026_44028));
            assert!(release.url.starts_with("https://releases.nixos.org/nix/"), "{}", release.url);
            assert!(release.url.ends_with(&format!("-{system}.tar.xz")), "{}", release.url);
            assert!(!release.url.contains('{'), "{}", release.url);
        }
        assert_eq!(release_for("m68k-linux").unwrap(), None);
    }
}
