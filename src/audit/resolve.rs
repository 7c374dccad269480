//! One name, component by component: who could put something else in its place?

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::acl;
use super::subject::{Standing, Subject};
use crate::facts::{Reader, components};

/// As many links as Linux follows in one path (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
const STICKY: u32 = 0o1000;

/// Where a name is weak.
#[derive(Debug, PartialEq, Eq)]
pub struct Weak {
    /// The links followed up to there, and at last why the subject can change it.
    pub chain: Vec<String>,
    /// Whether a link was followed before: then the name itself is not the subject's.
    pub through_link: bool,
}

/// `None` when nobody of the subject can change what `name` leads to.
pub fn resolve(reader: &Reader<'_>, subject: &Subject, name: &Path) -> Option<Weak> {
    let mut todo = components(name);
    let mut here = PathBuf::from("/");
    let mut chain = Vec::new();
    let mut links = 0;
    let weak = |chain: &[String], why: String| {
        let chain: Vec<_> = chain.iter().cloned().chain([why]).collect();
        Some(Weak { through_link: chain.len() > 1, chain })
    };
    while let Some(part) = todo.pop() {
        if part == ".." {
            here.pop();
            continue;
        }
        let entry = here.join(&part);
        if let Some(why) = may_swap(reader, subject, &here, &entry) {
            return weak(&chain, why);
        }
        let Ok(metadata) = reader.machine.lstat(&entry) else { return None };
        if !metadata.is_symlink() {
            if !metadata.is_dir() || todo.is_empty() {
                return may_write(reader, subject, &entry).and_then(|why| weak(&chain, why));
            }
            here = entry;
            continue;
        }
        links += 1;
        let target = reader.machine.read_link(&entry).ok().filter(|_| links <= MAX_LINKS)?;
        chain.push(format!("{} is a link to {}", entry.display(), target.display()));
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        todo.extend(components(&target));
    }
    None
}

/// Whether the subject can put something else in the place of an entry of a directory.
fn may_swap(reader: &Reader<'_>, subject: &Subject, directory: &Path, entry: &Path) -> Option<String> {
    let standing = standing(reader, subject, directory)?;
    let why = rights(reader, subject, directory, standing)?;
    if subject.has_uid(standing.uid) || standing.mode & STICKY == 0 {
        return Some(why);
    }
    // In a sticky directory of somebody else's, an entry is its owner's alone; one that is not there is anybody's to make.
    let owner = self::standing(reader, subject, entry);
    owner.is_none_or(|owner| subject.has_uid(owner.uid)).then_some(why)
}

fn may_write(reader: &Reader<'_>, subject: &Subject, path: &Path) -> Option<String> {
    rights(reader, subject, path, standing(reader, subject, path)?)
}

fn standing(reader: &Reader<'_>, subject: &Subject, path: &Path) -> Option<Standing> {
    let metadata = reader.machine.lstat(path).ok()?;
    let (uid, gid) = reader.machine.owner(path, &metadata);
    Some(subject.standing(path, uid, gid, metadata.mode() & 0o7777))
}

/// Why the subject can write to `path`, in words; `None` when it cannot.
fn rights(reader: &Reader<'_>, subject: &Subject, path: &Path, standing: Standing) -> Option<String> {
    let Standing { uid, gid, mode } = standing;
    let name = path.display();
    if subject.has_uid(uid) {
        return Some(format!("{name} belongs to {}", subject.name));
    }
    if mode & 0o002 != 0 {
        return Some(format!("{name} is everybody's to write (mode {mode:04o})"));
    }
    let list = reader.machine.attribute(path, acl::ATTRIBUTE);
    let by_group = match &list {
        // With a list, the mode's group bits are its mask.
        Some(list) => acl::lets_write(list, subject, gid),
        None => subject.has_gid(gid) && mode & 0o020 != 0,
    };
    by_group.then(|| match list {
        Some(_) => format!("an access control list of {name} lets {} write", subject.name),
        None => format!("{name} is writable for a group of {}", subject.name),
    })
}
