//! Settings that can come from a flag, the environment or the configuration file, in that order.
//!
//! One struct is the flags and the file's keys, so they cannot drift apart.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::BoolishValueParser;
use serde::Deserialize;

use crate::findings::{Share, check_accepted};
use crate::plan::Options;
use crate::platform::paths;
use crate::types::SubidRange;

/// Each field is a flag `--like-this`, a variable `NIX_UNROOT_LIKE_THIS`, and a key `like-this` in the file.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Asks nothing
    #[arg(long, short, global = true, env = "NIX_UNROOT_YES", value_parser = BoolishValueParser::new())]
    pub yes: bool,
    /// Name of the user that will own the store [default: nix]
    #[arg(long, global = true, value_name = "NAME", env = "NIX_UNROOT_NIX_USER")]
    pub nix_user: Option<String>,
    /// Name of its group [default: the user's name]
    #[arg(long, global = true, value_name = "NAME", env = "NIX_UNROOT_NIX_GROUP")]
    pub nix_group: Option<String>,
    /// Uid of that user [default: the system picks]
    #[arg(long, global = true, value_name = "UID", env = "NIX_UNROOT_NIX_UID")]
    pub nix_uid: Option<u32>,
    /// Gid of that group [default: the system picks]
    #[arg(long, global = true, value_name = "GID", env = "NIX_UNROOT_NIX_GID")]
    pub nix_gid: Option<u32>,
    /// First uid and gid of builds [default: 872415232, or the next free range]
    #[arg(long, global = true, value_name = "ID", env = "NIX_UNROOT_SUBID_START")]
    pub subid_start: Option<u32>,
    /// How many uids and gids builds get: a multiple of 65536 [default: 8388608]
    #[arg(long, global = true, value_name = "COUNT", env = "NIX_UNROOT_SUBID_COUNT")]
    pub subid_count: Option<u32>,
    /// Binary archive of Nix to install, a file or a URL [default: the release that this program knows]
    #[arg(long, global = true, value_name = "FILE|URL", env = "NIX_UNROOT_NIX_ARCHIVE")]
    pub nix_archive: Option<String>,
    /// SHA-256 of that archive, in hexadecimal; not needed for the release that this program knows
    #[arg(long, global = true, value_name = "HEX", env = "NIX_UNROOT_NIX_ARCHIVE_SHA256")]
    pub nix_archive_sha256: Option<String>,
    /// Proxy to fetch through, also for the daemon [default: that of http_proxy, https_proxy, ... in the environment]
    #[arg(long, global = true, value_name = "URL", env = "NIX_UNROOT_PROXY")]
    pub proxy: Option<String>,
    /// PEM file of certificates to trust, also for the daemon [default: the system's, or NIX_SSL_CERT_FILE]
    #[arg(long, global = true, value_name = "FILE", env = "NIX_UNROOT_SSL_CERT_FILE")]
    pub ssl_cert_file: Option<PathBuf>,
    /// With install: lines for nix.conf
    #[arg(long, global = true, value_name = "LINES", env = "NIX_UNROOT_EXTRA_CONF")]
    pub extra_conf: Option<String>,
    /// With install: leaves the files of shells alone
    #[arg(long, global = true, env = "NIX_UNROOT_NO_SHELL_CHANGES", value_parser = BoolishValueParser::new())]
    pub no_shell_changes: bool,
    /// With install: enables the daemon without starting it, so nothing is verified
    #[arg(long, global = true, env = "NIX_UNROOT_NO_START", value_parser = BoolishValueParser::new())]
    pub no_start: bool,
    /// How long running builds are waited for, in seconds [default: 300]
    #[arg(long, global = true, value_name = "SECONDS", env = "NIX_UNROOT_DRAIN_TIMEOUT")]
    pub drain_timeout: Option<u64>,
    /// Lets the Nix group read nix.conf, what it includes, and lists of builders
    #[arg(long, global = true, env = "NIX_UNROOT_SHARE_CONF", value_parser = BoolishValueParser::new())]
    pub share_conf: bool,
    /// Lets it read the netrc file
    #[arg(long, global = true, env = "NIX_UNROOT_SHARE_NETRC", value_parser = BoolishValueParser::new())]
    pub share_netrc: bool,
    /// Lets it read the keys of secret-key-files
    #[arg(long, global = true, env = "NIX_UNROOT_SHARE_KEYS", value_parser = BoolishValueParser::new())]
    pub share_keys: bool,
    /// Lets it read certificates that settings name, and their keys
    #[arg(long, global = true, env = "NIX_UNROOT_SHARE_CERTIFICATES", value_parser = BoolishValueParser::new())]
    pub share_certificates: bool,
    /// Copies root's ssh keys, known hosts and configuration into the daemon's home, and lets its group read keys that builders name
    #[arg(long, global = true, env = "NIX_UNROOT_SHARE_SSH", value_parser = BoolishValueParser::new())]
    pub share_ssh: bool,
    /// Copies root's AWS credentials into the daemon's home
    #[arg(long, global = true, env = "NIX_UNROOT_SHARE_AWS", value_parser = BoolishValueParser::new())]
    pub share_aws: bool,
    /// Leaves another installer's /nix/receipt.json and /nix/nix-installer, which could delete /nix
    #[arg(long, global = true, env = "NIX_UNROOT_KEEP_INSTALLER", value_parser = BoolishValueParser::new())]
    pub keep_installer: bool,
    /// Goes on in spite of this blocker; only those that can be accepted (repeatable, or with commas)
    #[arg(long, global = true, value_name = "KEY", env = "NIX_UNROOT_ACCEPT", value_delimiter = ',')]
    pub accept: Vec<String>,
    /// Directory of nix-daemon-gate and nix-root-scan [default: that of nix-unroot itself]
    #[arg(long, global = true, value_name = "DIR", env = "NIX_UNROOT_HELPERS")]
    pub helpers: Option<PathBuf>,
}

impl Settings {
    /// These settings, with what they leave open taken from the configuration file: `file`, or the default one when
    /// it exists.
    ///
    /// # Errors
    /// When the file cannot be read, or has a key that does not exist or a value of the wrong kind.
    pub fn with_file(self, file: Option<&Path>) -> Result<Self> {
        let path = file.unwrap_or(Path::new(paths::CONFIG));
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && file.is_none() => return Ok(self),
            other => {
                other.with_context(|| format!("cannot read the configuration file {}", path.display()))?
            }
        };
        let from_file: Self = toml::from_str(&text)
            .with_context(|| format!("the configuration file {} is not right", path.display()))?;
        Ok(self.or(from_file))
    }

    fn or(self, other: Self) -> Self {
        Self {
            yes: self.yes || other.yes,
            nix_user: self.nix_user.or(other.nix_user),
            nix_group: self.nix_group.or(other.nix_group),
            nix_uid: self.nix_uid.or(other.nix_uid),
            nix_gid: self.nix_gid.or(other.nix_gid),
            subid_start: self.subid_start.or(other.subid_start),
            subid_count: self.subid_count.or(other.subid_count),
            nix_archive: self.nix_archive.or(other.nix_archive),
            nix_archive_sha256: self.nix_archive_sha256.or(other.nix_archive_sha256),
            proxy: self.proxy.or(other.proxy),
            ssl_cert_file: self.ssl_cert_file.or(other.ssl_cert_file),
            extra_conf: self.extra_conf.or(other.extra_conf),
            no_shell_changes: self.no_shell_changes || other.no_shell_changes,
            no_start: self.no_start || other.no_start,
            drain_timeout: self.drain_timeout.or(other.drain_timeout),
            share_conf: self.share_conf || other.share_conf,
            share_netrc: self.share_netrc || other.share_netrc,
            share_keys: self.share_keys || other.share_keys,
            share_certificates: self.share_certificates || other.share_certificates,
            share_ssh: self.share_ssh || other.share_ssh,
            share_aws: self.share_aws || other.share_aws,
            keep_installer: self.keep_installer || other.keep_installer,
            accept: if self.accept.is_empty() { other.accept } else { self.accept },
            helpers: self.helpers.or(other.helpers),
        }
    }

    /// What a plan depends on. Whether the helpers are there is [`missing_helper`]'s question.
    ///
    /// # Errors
    /// When a name or a range is not one.
    pub fn options(&self) -> Result<Options> {
        let defaults = Options::default();
        let nix_user = self.nix_user.clone().unwrap_or(defaults.nix_user);
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
            accept: self.accept.clone(),
            program,
            helpers,
            ..defaults
        })
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
    [paths::GATE, paths::ROOT_SCAN].into_iter().find(|name| !directory.join(name).is_file())
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
    use clap::{Args as _, Command};

    use super::*;

    /// Every flag is a variable and a key of the file, and takes the same value there.
    #[test]
    fn flag_variable_and_key_are_one() {
        let command = Settings::augment_args(Command::new("test"));
        for argument in command.get_arguments() {
            let flag = argument.get_long().unwrap();
            let variable = argument.get_env().unwrap().to_str().unwrap();
            assert_eq!(variable, format!("NIX_UNROOT_{}", flag.replace('-', "_").to_uppercase()));
            let parsed = ["true", "7", "'x'", "['x']"]
                .iter()
                .any(|value| toml::from_str::<Settings>(&format!("{flag} = {value}")).is_ok());
            assert!(parsed, "{flag} is no key of the file");
        }
        assert!(toml::from_str::<Settings>("nix-usr = 'x'").is_err(), "an unknown key is an error");
    }

    #[test]
    fn a_flag_outranks_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        fs::write(&file, "nix-user = 'fromfile'\ndrain-timeout = 7\n").unwrap();
        let flags = Settings { nix_user: Some("flag".to_owned()), ..Settings::default() };
        let merged = flags.with_file(Some(&file)).unwrap();
        assert_eq!((merged.nix_user.as_deref(), merged.drain_timeout), (Some("flag"), Some(7)));
        assert!(Settings::default().with_file(Some(&dir.path().join("missing"))).is_err());
    }

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
