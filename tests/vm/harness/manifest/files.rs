//! Every file of a tree: type, bytes, mode, owner, time, target, extended attributes, hard links.

use super::{Entry, noise};
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// All entries below `tree`, named by their path in the machine, but for `without` and what is below it.
pub fn walk(tree: &Path, without: &str) -> Result<BTreeMap<String, Entry>> {
    let mut walk = Walk { tree, without, entries: BTreeMap::new(), links: HashMap::new() };
    walk.visit("/")?;
    let Walk { mut entries, links, .. } = walk;
    for mut names in links.into_values() {
        names.sort();
        for name in &names {
            if let Some(entry) = entries.get_mut(name) {
                entry.insert("hard links", format!("{} from {}", names.len(), names[0]));
            }
        }
    }
    Ok(entries)
}

struct Walk<'a> {
    tree: &'a Path,
    without: &'a str,
    entries: BTreeMap<String, Entry>,
    /// Names of every file with more than one link, by inode.
    links: HashMap<(u64, u64), Vec<String>>,
}

impl Walk<'_> {
    fn visit(&mut self, path: &str) -> Result<()> {
        if noise::hides(path) || path == self.without {
            return Ok(());
        }
        let real = self.tree.join(&path[1..]);
        let metadata = match fs::symlink_metadata(&real) {
            // The machine runs on while we look.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            metadata => metadata.with_context(|| format!("cannot look at {}", real.display()))?,
        };
        self.entries.insert(path.to_owned(), entry(path, &real, &metadata)?);
        if metadata.is_file() && metadata.nlink() > 1 {
            self.links.entry((metadata.dev(), metadata.ino())).or_default().push(path.to_owned());
        }
        if !metadata.is_dir() || noise::hides_content(path) {
            return Ok(());
        }
        for child in fs::read_dir(&real)? {
            let name = child?.file_name();
            let name = name.to_str().with_context(|| format!("a name in {path} is not UTF-8"))?;
            self.visit(&format!("{}/{name}", path.trim_end_matches('/')))?;
        }
        Ok(())
    }
}

fn entry(path: &str, real: &Path, metadata: &Metadata) -> Result<Entry> {
    let kind = metadata.file_type();
    let mut entry = Entry::from([
        ("mode", format!("{:04o}", metadata.mode() & 0o7777)),
        ("owner", format!("{}:{}", metadata.uid(), metadata.gid())),
    ]);
    let name = if kind.is_file() {
        if path != super::database::PATH {
            entry.insert("sha256", digest(real, metadata)?);
        }
        "file"
    } else if kind.is_symlink() {
        entry.insert("target", fs::read_link(real)?.to_string_lossy().into_owned());
        "symlink"
    } else if kind.is_dir() {
        "directory"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_fifo() {
        "fifo"
    } else {
        entry.insert("device", format!("{:#x}", metadata.rdev()));
        "device"
    };
    entry.insert("type", name.to_owned());
    if noise::keeps_mtime(path) {
        entry.insert("mtime", format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec()));
    }
    for name in xattr::list(real).with_context(|| format!("cannot list xattrs of {}", real.display()))? {
        let value = xattr::get(real, &name)?.unwrap_or_default();
        let text = format!("{}={}", name.to_string_lossy(), hex(&value));
        entry.entry("xattrs").and_modify(|all| *all = format!("{all} {text}")).or_insert(text);
    }
    Ok(entry)
}

/// What tells one content from another without reading it: the kernel sets the change time, and nobody can set it back. The path is
/// that on the host, so it tells machines apart: what a power cut left of a disk has the inodes and times of others.
type Content = (PathBuf, u64, u64, i64, i64);

/// The digest, from the last manifest when the file was not changed since: most of a machine never is, and a test may take hundreds.
fn digest(path: &Path, metadata: &Metadata) -> Result<String> {
    static KNOWN: Mutex<BTreeMap<Content, String>> = Mutex::new(BTreeMap::new());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let content = (path.to_owned(), metadata.ino(), metadata.size(), metadata.ctime(), metadata.ctime_nsec());
    if let Some(digest) = known().get(&content) {
        return Ok(digest.clone());
    }
    let digest = sha256(path)?;
    // Two changes may fall into one tick of the clock that stamps them.
    let age =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs().cast_signed() - metadata.ctime();
    if age > 1 {
        known().insert(content, digest.clone());
    }
    Ok(digest)
}

fn sha256(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut hash)?;
    Ok(hex(&hash.finalize()[..16]))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
