//! The HTTP client: whom it trusts, and through which proxy it goes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Proxy};

/// Where systems keep the certificates that they trust; the first that is there counts (as in Nix's own search, and in Go's).
const SYSTEM_CERTIFICATES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// How long a connection, or a pause in one, may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client that trusts `certificates` (without them: the system's, and without those: Mozilla's, which are built in), and
/// goes through `proxy`, or else takes it from the usual variables (`https_proxy`, `all_proxy`, `no_proxy`, ...).
pub(super) fn agent(certificates: Option<&Path>, proxy: Option<&str>) -> Result<Agent> {
    let file = certificates.map(Path::to_owned).or_else(system_certificates);
    let roots = match &file {
        Some(file) => trusted(file)?,
        None => RootCerts::WebPki,
    };
    let proxy = match proxy {
        Some(proxy) => Some(Proxy::new(proxy).with_context(|| format!("{proxy:?} is no proxy"))?),
        None => Proxy::try_from_env(),
    };
    let tls = TlsConfig::builder().root_certs(roots).build();
    Ok(Agent::config_builder()
        .tls_config(tls)
        .proxy(proxy)
        .http_status_as_error(false)
        .max_redirects(5)
        .timeout_connect(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE))
        .user_agent(concat!("nix-unroot/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent())
}

fn system_certificates() -> Option<PathBuf> {
    SYSTEM_CERTIFICATES.iter().map(PathBuf::from).find(|path| path.is_file())
}

fn trusted(file: &Path) -> Result<RootCerts> {
    let text =
        std::fs::read(file).with_context(|| format!("cannot read the certificates in {}", file.display()))?;
    let certificates: Vec<_> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        bail!("{} holds no certificate in PEM form", file.display());
    }
    Ok(RootCerts::new_with_certs(&certificates))
}
