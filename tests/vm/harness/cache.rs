//! Trees that are costly to make, made once and kept, also between runs.

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How long a tree stays that nobody asks for.
const KEPT: Duration = Duration::from_secs(3 * 24 * 3600);

/// Where cached trees and running machines live.
pub fn dir() -> Result<PathBuf> {
    let dir = std::env::var_os("NIX_UNROOT_TEST_CACHE")
        .map_or_else(|| PathBuf::from("/var/cache/nix-unroot-tests"), PathBuf::from);
    fs::create_dir_all(&dir).with_context(|| {
        format!(
            "cannot make {}: run as root, or set NIX_UNROOT_TEST_CACHE to a directory of yours",
            dir.display()
        )
    })?;
    Ok(dir)
}

/// A cached tree; nobody removes it while this value lives.
#[derive(Debug)]
pub struct Cached {
    path: PathBuf,
    _in_use: File,
}

impl std::ops::Deref for Cached {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.path
    }
}

/// The directory `KIND-KEY` of the cache, where the key stands for `inputs`. `build` fills it the first time; other
/// tests and other runs that want it meanwhile wait. Trees of this kind that nobody used for a while are removed.
pub fn tree(kind: &str, inputs: &[&str], build: impl FnOnce(&Path) -> Result<()>) -> Result<Cached> {
    let dir = dir()?;
    let name = format!("{kind}-{}", key(inputs));
    let path = dir.join(&name);
    let lock = lock_file(&dir, &name)?;
    lock.lock()?;
    lock.set_modified(SystemTime::now())?;
    if !path.exists() {
        let unfinished = dir.join(format!("{name}.unfinished"));
        remove(&unfinished)?;
        fs::create_dir(&unfinished)?;
        eprintln!("{name}: building (once; kept in {})", dir.display());
        let start = std::time::Instant::now();
        build(&unfinished).with_context(|| format!("cannot build the test tree {name}"))?;
        fs::rename(&unfinished, &path)?;
        eprintln!("{name}: built in {:.1} s", start.elapsed().as_secs_f32());
        remove_unused(&dir, kind, &name)?;
    }
    lock.lock_shared()?;
    Ok(Cached { path, _in_use: lock })
}

/// `rm -rf`, and no complaint when there is nothing.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn key(inputs: &[&str]) -> String {
    let mut hash = Sha256::new();
    for input in inputs {
        hash.update(input.len().to_le_bytes());
        hash.update(input);
    }
    format!("{:x}", hash.finalize())[..12].to_owned()
}

fn lock_file(dir: &Path, name: &str) -> Result<File> {
    let path = dir.join(format!("{name}.lock"));
    File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))
}

/// Other checkouts with other sources may share the cache, so a tree goes only when nobody wanted it for [`KEPT`].
fn remove_unused(dir: &Path, kind: &str, keep: &str) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(key) = name.strip_prefix(kind).and_then(|rest| rest.strip_prefix('-')) else { continue };
        let key = key.trim_end_matches(".unfinished");
        if key.len() != 12 || name == keep {
            continue;
        }
        let lock = lock_file(dir, &format!("{kind}-{key}"))?;
        let idle = lock.metadata()?.modified()?.elapsed().unwrap_or_default();
        if idle > KEPT && lock.try_lock().is_ok() {
            remove(&dir.join(&name))?;
        }
    }
    Ok(())
}
