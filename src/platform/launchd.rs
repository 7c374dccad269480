//! launchd: asking about jobs, loading and unloading them, with launchctl(1).

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::system::command;

/// Our job that runs builds.
pub const BROKER: &str = "org.nix-unroot.build-broker";
/// Our job that finds roots.
pub const ROOT_SCAN: &str = "org.nix-unroot.root-scan";
/// How `launchctl print` ends when there is no such service.
pub const NOT_FOUND: i32 = 113;
/// How long a job may take to end: launchd kills it after `ExitTimeOut`, 20 s unless its property list says otherwise (launchd.plist(5)).
const END: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// Whether launchd knows the job of this label.
///
/// # Errors
/// When launchctl fails.
pub fn is_loaded(label: &str) -> Result<bool> {
    let service = service(label);
    let output = command::output("launchctl", &["print", &service])?;
    match output.status.code() {
        Some(0) => Ok(true),
        Some(NOT_FOUND) => Ok(false),
        _ => bail!("launchctl print {service} ended with {}", output.status),
    }
}

/// Unloads a job, and returns when it has ended. One that is not loaded is fine.
///
/// # Errors
/// When it does not end.
pub fn unload(label: &str) -> Result<()> {
    if !is_loaded(label)? {
        return Ok(());
    }
    // It may say that the operation is in progress (36) and fail: what counts is whether the job goes.
    let said = command::output("launchctl", &["bootout", &service(label)])?;
    let start = Instant::now();
    while is_loaded(label)? {
        if start.elapsed() > END {
            let why = String::from_utf8_lossy(&said.stderr).trim().to_owned();
            bail!("launchd does not let go of {label} ({why}): see `launchctl print {}`", service(label));
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Loads the job of a property list, unless it is loaded.
///
/// # Errors
/// When launchd refuses.
pub fn load(label: &str, list: &Path) -> Result<()> {
    if is_loaded(label)? {
        return Ok(());
    }
    let list = list.to_str().with_context(|| format!("{} is not UTF-8", list.display()))?;
    command::run("launchctl", &["bootstrap", "system", list])?;
    Ok(())
}

/// Starts a job that launchd knows, once more if it has ended.
///
/// # Errors
/// When launchd refuses.
pub fn start(label: &str) -> Result<()> {
    command::run("launchctl", &["kickstart", &service(label)])?;
    Ok(())
}

/// Whether launchd may start the job, also when the machine starts. Without a word about it, it may.
///
/// # Errors
/// When launchctl fails.
pub fn is_enabled(label: &str) -> Result<bool> {
    let said = command::run("launchctl", &["print-disabled", "system"])?;
    Ok(!disabled(&said).iter().any(|disabled| disabled == label))
}

/// Lets launchd start the job, or forbids it. Neither starts or stops it now.
///
/// # Errors
/// When launchd does not do it.
pub fn set_enabled(label: &str, enabled: bool) -> Result<()> {
    if is_enabled(label)? == enabled {
        return Ok(());
    }
    let verb = if enabled { "enable" } else { "disable" };
    command::run("launchctl", &[verb, &service(label)])?;
    if is_enabled(label)? != enabled {
        bail!("`launchctl {verb} {}` ended well, and nothing changed", service(label));
    }
    Ok(())
}

/// Labels that are disabled. `launchctl print-disabled system` writes `"LABEL" => disabled`; before macOS 13 it wrote `true`.
pub fn disabled(said: &str) -> Vec<String> {
    let label = |line: &str| {
        let (label, state) = line.trim().split_once(" => ")?;
        matches!(state.trim(), "disabled" | "true").then(|| label.trim_matches('"').to_owned())
    };
    said.lines().filter_map(label).collect()
}

fn service(label: &str) -> String {
    format!("system/{label}")
}
