//! What an administrator can choose of a machine's Nix, the same for every command.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::facts::macos;
use crate::findings::{Share, check_accepted};
use crate::plan::Options;
use crate::platform::{paths, systemd};
use crate::types::SubidRange;

/// What the store's owner is called on a Mac: names of accounts that are no person's begin so there.
const MAC_USER: &str = "_nix";

/// Each field is a flag `--like-this`, a variable `NIX_UNROOT_LIKE_THIS`, and a key `like-this` in the file: see `config`.
#[derive(Clone, Debug, Default, Args)]
pub struct Settings {
    /// Asks nothing
    #[arg(long, short, global = true)]
    pub yes: bool,
    /// Name of the user that will own the store [default: nix, on a Mac _nix]
    #[arg(long, global = true, value_name = "NAME")]
    pub nix_user: Option<String>,
    /// Name of its group [default: the user's name]
    #[arg(long, global = true, value_name = "NAME")]
    pub nix_group: Option<String>,
    /// Uid of that user [default: the system picks]
    #[arg(long, global = true, value_name = "UID")]
    pub nix_uid: Option<u32>,
    /// Gid of that group [default: the system picks]
    #[arg(long, global = true, value_name = "GID")]
    pub nix_gid: Option<u32>,
    /// First uid and gid of builds [default: 872415232, or the next free range]
    #[arg(long, global = true, value_name = "ID")]
    pub subid_start: Option<u32>,
    /// How many uids and gids builds get: a multiple of 65536 [default: 8388608]
    #[arg(long, global = true, value_name = "COUNT")]
    pub subid_count: Option<u32>,
    /// Binary archive of Nix to install, a file or a URL [default: the release that this program knows]
    #[arg(long, global = true, value_name = "FILE|URL")]
    pub nix_archive: Option<String>,
    /// SHA-256 of that archive, in hexadecimal; not needed for the release that this program knows
    #[arg(long, global = true, value_name = "HEX")]
    pub nix_archive_sha256: Option<String>,
    /// Proxy to fetch through, also for the daemon [default: that of http_proxy, https_proxy, ... in the environment]
    #[arg(long, global = true, value_name = "URL")]
    pub proxy: Option<String>,
    /// PEM file of certificates to trust, also for the daemon [default: the system's, or NIX_SSL_CERT_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub ssl_cert_file: Option<PathBuf>,
    /// With install: lines for nix.conf
    #[arg(long, global = true, value_name = "LINES")]
    pub extra_conf: Option<String>,
    /// With install: leaves the files of shells alone
    #[arg(long, global = true)]
    pub no_shell_changes: bool,
    /// With install: enables the daemon without starting it, so nothing is verified
    #[arg(long, global = true)]
    pub no_start: bool,
    /// What starts the daemon: systemd, or none (in a container) [default: systemd]
    #[arg(long, global = true, value_name = "systemd|none")]
    pub init: Option<String>,
    /// How long running builds are waited for, in seconds [default: 300]
    #[arg(long, global = true, value_name = "SECONDS")]
    pub drain_timeout: Option<u64>,
    /// Lets the Nix group read nix.conf, what it includes, and lists of builders
    #[arg(long, global = true)]
    pub share_conf: bool,
    /// Lets it read the netrc file
    #[arg(long, global = true)]
    pub share_netrc: bool,
    /// Lets it read the keys of secret-key-files
    #[arg(long, global = true)]
    pub share_keys: bool,
    /// Lets it read certificates that settings name, and their keys
    #[arg(long, global = true)]
    pub share_certificates: bool,
    /// Copies root's ssh keys, known hosts and configuration into the daemon's home, and lets its group read keys that builders name
    #[arg(long, global = true)]
    pub share_ssh: bool,
    /// Copies root's AWS credentials into the daemon's home
    #[arg(long, global = true)]
    pub share_aws: bool,
    /// Leaves another installer's /nix/receipt.json and /nix/nix-installer, which could delete /nix
    #[arg(long, global = true)]
    pub keep_installer: bool,
    /// Goes on in spite of this blocker; only those that can be accepted (repeatable, or with commas)
    #[arg(long, global = true, value_name = "KEY", value_delimiter = ',')]
    pub accept: Vec<String>,
    /// On a Mac: changes it, although that was tried on simulated ones only
    #[arg(long, global = true)]
    pub untried_on_macs: bool,
    /// Directory of nix-daemon-gate, nix-root-scan and, on a Mac, nix-build-broker [default: that of nix-unroot itself]
    #[arg(long, global = true, value_name = "DIR")]
    pub helpers: Option<PathBuf>,
}

impl Settings {
    /// What a plan depends on. Whether the helpers are there is [`missing_helper`]'s question.
    ///
    /// # Errors
    /// When a name or a range is not one.
    pub fn options(&self) -> Result<Options> {
        let defaults = Options::default();
        let default_user = if macos::is_here() { MAC_USER.to_owned() } else { defaults.nix_user };
        let nix_user = self.nix_user.clone().unwrap_or(default_user);
        let nix_group = self.nix_group.clone().unwrap_or_else(|| nix_user.clone());
        for name in [&nix_user, &nix_group] {
            check_account_name(name)?;
        }
        check_accepted(&self.accept).context("--accept")?;
        let program = std::env::current_exe().context("cannot find out where this program lies")?;
        let helpers = self.helpers.clone().unwrap_or_else(|| helpers_of(&program));
        Ok(Options {
            nix_user,
            nix_group,
            nix_uid: self.nix_uid,
            nix_gid: self.nix_gid,
            subid_range: self.subid_range()?,
            extra_conf: self.extra_conf.clone().filter(|lines| !lines.trim().is_empty()),
            change_shells: !self.no_shell_changes,
            start: !self.no_start,
            without_init: self.without_init()?,
            drain_timeout: self.drain_timeout.unwrap_or(defaults.drain_timeout),
            share: Share {
                conf: self.share_conf,
                netrc: self.share_netrc,
                keys: self.share_keys,
                certificates: self.share_certificates,
                ssh: self.share_ssh,
                aws: self.share_aws,
            },
            keep_installer: self.keep_installer,
            untried_on_macs: self.untried_on_macs,
            accept: self.accept.clone(),
            program,
            helpers,
            ..defaults
        })
    }

    fn without_init(&self) -> Result<bool> {
        match self.init.as_deref() {
            None | Some("systemd") => Ok(false),
            Some("none") if systemd::is_running() => {
                bail!("systemd runs this machine and is to start the daemon: leave --init none away")
            }
            Some("none") => Ok(true),
            Some(other) => bail!("--init is systemd or none, not {other:?}"),
        }
    }

    fn subid_range(&self) -> Result<Option<SubidRange>> {
        if self.subid_start.is_none() && self.subid_count.is_none() {
            return Ok(None);
        }
        let start = self.subid_start.unwrap_or(SubidRange::NIX_DEFAULT.start);
        let count = self.subid_count.unwrap_or(SubidRange::NIX_DEFAULT.count);
        let range = SubidRange::new(start, count)
            .with_context(|| format!("{count} ids from {start} on are not a range of 32-bit ids"))?;
        if start < SubidRange::SLOT || !count.is_multiple_of(SubidRange::SLOT) {
            bail!(
                "--subid-count must be a multiple of {0}, and --subid-start at least {0}: a build takes {0} ids",
                SubidRange::SLOT
            );
        }
        Ok(Some(range))
    }
}

/// Where the helpers lie: beside this program, or else where a migration puts them.
fn helpers_of(program: &Path) -> PathBuf {
    let beside = program.parent().filter(|directory| missing_helper(directory).is_none());
    beside.unwrap_or(Path::new(paths::LIBEXEC_DIR)).to_owned()
}

/// The first helper that is not in `directory`.
pub fn missing_helper(directory: &Path) -> Option<&'static str> {
    let broker = macos::is_here().then_some(paths::BROKER);
    [paths::GATE, paths::ROOT_SCAN].into_iter().chain(broker).find(|name| !directory.join(name).is_file())
}

/// The names that useradd(8) takes everywhere: a letter or `_`, then letters, digits, `_` and `-`.
fn check_account_name(name: &str) -> Result<()> {
    let good = (1..=31).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte));
    if !good || name == "root" {
        bail!("{name:?} cannot be the name of Nix's user or group: use small letters, digits, _ and -");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ranges_are_checked_before_anything_else() {
        for name in ["nix", "_nix", "nix-daemon2"] {
            assert!(check_account_name(name).is_ok(), "{name}");
        }
        for name in ["", "root", "-x", "a b", "a:b", "Nix", "ä", "a\nb"] {
            assert!(check_account_name(name).is_err(), "{name:?}");
        }
        let range = |start, count| {
            Settings { subid_start: start, subid_count: count, ..Settings::default() }.subid_range()
        };
        assert_eq!(range(None, None).unwrap(), None);
        assert_eq!(range(Some(1_000_000), Some(65_536)).unwrap(), SubidRange::new(1_000_000, 65_536));
        assert!(range(Some(1_000_000), Some(1000)).is_err());
        assert!(range(Some(4_294_000_000), None).is_err());
        assert!(range(Some(0), None).is_err());
    }
}
