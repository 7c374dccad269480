//! `install`: which archive Nix comes from, and what its daemon's environment is.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::args::MigrateArgs;
use super::exit::Exit;
use super::settings::Settings;
use super::{Session, UsageError, migrate};
use crate::archive::{Release, Source, release_for};
use crate::plan::{Options, Purpose};
use crate::types::Sha256Digest;

/// Variables that name a proxy. curl, which Nix fetches with, reads `http_proxy` in small letters only.
const PROXY_VARIABLES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "no_proxy",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];
/// Variables that name a file of certificates, the first that is set counts.
const CERTIFICATE_VARIABLES: [&str; 3] = ["NIX_SSL_CERT_FILE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"];

pub fn install(session: &Session, args: &MigrateArgs) -> Result<Exit> {
    let options = options(session)?;
    let exit = migrate::change(session, args, &options)?;
    if matches!(exit, Exit::Done | Exit::Changes) && !options.start && !args.dry_run {
        session.output.message(
            "nothing was started or verified: the daemon starts with the next boot; run nix-unroot verify then",
        );
    }
    Ok(exit)
}

/// The plan's options for an installation.
///
/// # Errors
/// When the archive or the certificates are not what they should be.
pub fn options(session: &Session) -> Result<Options> {
    let settings = &session.settings;
    let usage = |error: anyhow::Error| UsageError(format!("{error:#}"));
    let certificates = certificates(settings, &|name| std::env::var(name).ok()).map_err(usage)?;
    Ok(Options {
        purpose: Purpose::Install,
        archive: Some(archive(settings, &this_system()?).map_err(usage)?),
        environment: environment(settings, certificates.as_deref(), &|name| std::env::var(name).ok())
            .map_err(usage)?,
        certificates,
        proxy: settings.proxy.clone(),
        ..session.plan_options()?
    })
}

/// The plan's options for a migration, which brings a Nix along where an archive is named.
///
/// # Errors
/// As [`options`].
pub fn migrate_options(session: &Session) -> Result<Options> {
    let named = session.settings.nix_archive.is_some() || session.settings.nix_archive_sha256.is_some();
    if !named {
        return session.plan_options();
    }
    // The old daemon's environment is carried over from its unit; only what is named here comes on top.
    let environment = environment(&session.settings, session.settings.ssl_cert_file.as_deref(), &|_| None)?;
    Ok(Options { purpose: Purpose::Migrate, environment, ..options(session)? })
}

/// The machine's name as Nix writes it: `x86_64-linux`.
fn this_system() -> Result<String> {
    let name = nix::sys::utsname::uname().context("cannot ask the kernel for its name")?;
    Ok(nix_system(&name.machine().to_string_lossy(), &name.sysname().to_string_lossy()))
}

/// A Mac says `arm64` of what Nix, like Linux, calls `aarch64`.
fn nix_system(machine: &str, kernel: &str) -> String {
    let machine = if machine == "arm64" { "aarch64" } else { machine };
    format!("{machine}-{}", kernel.to_lowercase())
}

/// The archive that was chosen, or the release that is known for `system`. Nothing without a digest.
fn archive(settings: &Settings, system: &str) -> Result<Source> {
    let given = settings.nix_archive_sha256.as_deref().map(str::parse::<Sha256Digest>).transpose();
    let given = given.map_err(|error| anyhow::anyhow!("--nix-archive-sha256: {error}"))?;
    let known = release_for(system)?;
    let Some(from) = &settings.nix_archive else {
        anyhow::ensure!(
            given.is_none(),
            "--nix-archive-sha256 is the digest of an archive: name that with --nix-archive"
        );
        let Release { url, sha256, .. } = known.with_context(|| {
            format!("no release of Nix is known for {system}: give one with --nix-archive and --nix-archive-sha256")
        })?;
        return Ok(Source { from: url, sha256 });
    };
    if Source::is_url(from) {
        // The same file from a mirror.
        let mirrored = known.filter(|known| from.rsplit('/').next() == known.url.rsplit('/').next());
        let sha256 = given.or_else(|| Some(mirrored?.sha256)).with_context(|| {
            format!("what {from} should hold is not known: give its digest with --nix-archive-sha256")
        })?;
        return Ok(Source { from: from.clone(), sha256 });
    }
    let path = PathBuf::from(from);
    let context = || format!("cannot read the archive {from}");
    let path = path.canonicalize().with_context(context)?;
    let found =
        Sha256Digest::of(File::open(&path).with_context(context)?, |_| Ok(())).with_context(context)?;
    let from = path.to_str().context("the archive's path is not UTF-8")?.to_owned();
    match given {
        Some(given) if given == found => Ok(Source { from, sha256: found }),
        Some(given) => {
            anyhow::bail!("{from} is not the archive that was asked for: its SHA-256 is {found}, not {given}")
        }
        None if known.is_some_and(|known| known.sha256 == found) => Ok(Source { from, sha256: found }),
        None => anyhow::bail!(
            "{from} is not the release that this program knows: when it is what you want, say so with \
             --nix-archive-sha256 {found}"
        ),
    }
}

/// The file of certificates that was chosen, or that the environment names.
fn certificates(settings: &Settings, variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<PathBuf>> {
    let named = CERTIFICATE_VARIABLES.into_iter().filter_map(variable).find(|value| !value.is_empty());
    let Some(file) = settings.ssl_cert_file.clone().or(named.map(PathBuf::from)) else { return Ok(None) };
    let file =
        file.canonicalize().with_context(|| format!("cannot read the certificates in {}", file.display()))?;
    Ok(Some(file))
}

/// What the daemon's environment gets, in the order of its names.
fn environment(
    settings: &Settings,
    certificates: Option<&Path>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<(String, String)>> {
    let mut variables: Vec<(String, String)> = match &settings.proxy {
        Some(proxy) => {
            let no_proxy = variable("no_proxy").or_else(|| variable("NO_PROXY"));
            let proxies = ["http_proxy", "https_proxy"].map(|name| (name.to_owned(), proxy.clone()));
            proxies.into_iter().chain(no_proxy.map(|value| ("no_proxy".to_owned(), value))).collect()
        }
        None => PROXY_VARIABLES
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), variable(name).filter(|value| !value.is_empty())?)))
            .collect(),
    };
    if let Some(file) = certificates {
        variables.push(("NIX_SSL_CERT_FILE".to_owned(), file.display().to_string()));
    }
    for (name, value) in &variables {
        anyhow::ensure!(!value.contains(char::is_control), "{name} holds a control character");
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";

    fn chosen(archive: Option<&str>, sha256: Option<&str>) -> Settings {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Settings { nix_archive: owned(archive), nix_archive_sha256: owned(sha256), ..Settings::default() }
    }

    fn from(archive: Option<&str>, sha256: Option<&str>) -> Result<Source> {
        super::archive(&chosen(archive, sha256), "x86_64-linux")
    }

    #[test]
    fn no_archive_goes_without_a_digest() {
        let release = release_for("x86_64-linux").unwrap().unwrap();
        assert_eq!(
            from(None, None).unwrap(),
            Source { from: release.url.clone(), sha256: release.sha256.clone() }
        );
        let name = release.url.rsplit('/').next().unwrap();
        let mirror = format!("https://mirror.example/{name}");
        assert_eq!(from(Some(&mirror), None).unwrap().sha256, release.sha256);
        assert_eq!(from(Some("http://x/y"), Some(DIGEST)).unwrap().sha256.to_string(), DIGEST);
        for (archive, sha256, part) in [
            (Some("https://mirror.example/other.tar.xz"), None, "--nix-archive-sha256"),
            (None, Some(DIGEST), "--nix-archive"),
            (Some("https://x/y"), Some("12"), "64 digits"),
            (Some("/nonexistent/archive"), None, "/nonexistent/archive"),
        ] {
            let said = format!("{:#}", from(archive, sha256).unwrap_err());
            assert!(said.contains(part), "{said}");
        }
        let said = super::archive(&chosen(None, None), "m68k-linux").unwrap_err().to_string();
        assert!(said.contains("m68k-linux") && said.contains("--nix-archive"), "{said}");
    }

    #[test]
    fn each_system_that_has_a_release_is_called_as_nix_calls_it() {
        for (machine, kernel, system) in [
            ("x86_64", "Linux", "x86_64-linux"),
            ("aarch64", "Linux", "aarch64-linux"),
            ("arm64", "Darwin", "aarch64-darwin"),
            ("x86_64", "Darwin", "x86_64-darwin"),
        ] {
            assert_eq!(nix_system(machine, kernel), system);
            assert!(release_for(system).unwrap().is_some(), "{system}");
        }
    }

    #[test]
    fn a_file_is_compared_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nix.tar.xz");
        std::fs::write(&path, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq").unwrap();
        let file = path.to_str();
        assert_eq!(from(file, Some(DIGEST)).unwrap().sha256.to_string(), DIGEST);
        let unknown = from(file, None).unwrap_err().to_string();
        assert!(unknown.contains(&format!("--nix-archive-sha256 {DIGEST}")), "{unknown}");
        let wrong = from(file, Some(&"0".repeat(64))).unwrap_err().to_string();
        assert!(wrong.contains(DIGEST), "{wrong}");
    }

    #[test]
    fn proxies_and_certificates_reach_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, "").unwrap();
        let path = file.display().to_string();
        let variable = |name: &str| match name {
            "https_proxy" => Some("http://p:1".to_owned()),
            "NO_PROXY" => Some("localhost".to_owned()),
            "http_proxy" => Some(String::new()),
            "SSL_CERT_FILE" => Some(path.clone()),
            _ => None,
        };
        let settings = Settings::default();
        let found = certificates(&settings, &variable).unwrap();
        assert_eq!(found.as_deref(), Some(file.as_path()));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            environment(&settings, found.as_deref(), &variable).unwrap(),
            [
                pair("https_proxy", "http://p:1"),
                pair("NO_PROXY", "localhost"),
                pair("NIX_SSL_CERT_FILE", &path)
            ]
        );
        let settings = Settings { proxy: Some("http://q:2".to_owned()), ..Settings::default() };
        let chosen = environment(&settings, None, &variable).unwrap();
        assert_eq!(chosen[0], pair("http_proxy", "http://q:2"));
        assert!(environment(&settings, None, &|_| Some("a\nb".to_owned())).is_err());
        let missing = Settings { ssl_cert_file: Some("/nonexistent.pem".into()), ..Settings::default() };
        assert!(certificates(&missing, &variable).is_err());
    }
}
