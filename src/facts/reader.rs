//! Reading with a memory: what could not be read is noted once, with the reason.

use std::cell::RefCell;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::accounts::Accounts;
use super::machine::{As, Machine};
use super::{PathOwner, Unread};

/// A machine, and what could not be read of it so far.
#[derive(Debug)]
pub(crate) struct Reader<'m> {
    pub machine: &'m Machine,
    pub accounts: Accounts,
    unread: RefCell<Vec<Unread>>,
}

impl<'m> Reader<'m> {
    pub fn new(machine: &'m Machine) -> Self {
        let mut reader = Self { machine, accounts: Accounts::default(), unread: RefCell::default() };
        reader.accounts = Accounts::read(&reader);
        reader
    }

    /// A file's text; `None` when it is not there, and, with a note, when it cannot be read.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let path = path.as_ref();
        self.noted(path, self.machine.read(path))
    }

    /// Paths of a directory's entries, sorted.
    pub fn list(&self, path: impl AsRef<Path>) -> Vec<PathBuf> {
        let path = path.as_ref();
        let names = self.noted(path, self.machine.list(path)).unwrap_or_default();
        names.into_iter().map(|name| path.join(name)).collect()
    }

    /// Owner and mode of a path itself, a link not followed.
    pub fn path_owner(&self, path: impl AsRef<Path>) -> Option<PathOwner> {
        let path = path.as_ref();
        let metadata = self.noted(path, self.machine.lstat(path))?;
        let (uid, gid) = self.machine.owner(path, &metadata);
        Some(PathOwner { path: path.to_owned(), uid, gid, mode: metadata.mode() & 0o7777 })
    }

    /// Owner and mode of what a path leads to.
    pub fn target_owner(&self, path: impl AsRef<Path>) -> Option<PathOwner> {
        let path = path.as_ref();
        let metadata = self.noted(path, self.machine.stat(path))?;
        let (uid, gid) = self.machine.owner(path, &metadata);
        Some(PathOwner { path: path.to_owned(), uid, gid, mode: metadata.mode() & 0o7777 })
    }

    pub fn note(&self, what: impl Into<String>, why: impl Into<String>) {
        let note = Unread { what: what.into(), why: why.into() };
        let mut unread = self.unread.borrow_mut();
        if !unread.contains(&note) {
            unread.push(note);
        }
    }

    pub fn into_unread(self) -> Vec<Unread> {
        self.unread.into_inner()
    }

    /// The first directory on the way that may not be entered, so that one closed directory is told once and not for
    /// each name asked for in it; `path` when there is none.
    fn barrier<'p>(&self, path: &'p Path) -> &'p Path {
        let closed = |directory: &&Path| {
            let host = self.machine.host(directory);
            host.is_ok_and(|host| access(&host, AccessFlags::X_OK) == Err(nix::Error::EACCES))
        };
        let above: Vec<_> = path.ancestors().skip(1).collect();
        above.into_iter().rev().find(closed).unwrap_or(path)
    }

    /// A property list; `None` when it is not there, and, with a note, when it cannot be read as one.
    pub fn property_list<T: serde::de::DeserializeOwned>(&self, path: impl AsRef<Path>) -> Option<T> {
        let path = path.as_ref();
        let bytes = self.noted(path, self.machine.read_bytes(path))?;
        plist::from_bytes(&bytes)
            .inspect_err(|error| self.note(path.to_string_lossy(), error.to_string()))
            .ok()
    }

    /// The property list that a command writes; `None`, with a note, when it fails or writes something else.
    pub fn property_list_of<T: serde::de::DeserializeOwned>(
        &self,
        program: &str,
        words: &[&str],
    ) -> Option<T> {
        let said = self.machine.run(As::Self_, program, words);
        let read =
            said.and_then(|text| plist::from_bytes(text.as_bytes()).map_err(|error| error.to_string()));
        read.inspect_err(|why| self.note(format!("{program} {}", words.join(" ")), why)).ok()
    }

    fn noted<T>(&self, path: &Path, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                    self.note(self.barrier(path).to_string_lossy(), reason(&error));
                }
                None
            }
        }
    }
}

/// Why something could not be read, in words, with the remedy when it is a matter of rights.
pub(crate) fn reason(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied && !nix::unistd::geteuid().is_root() {
        return "permission denied (run as root to see it)".to_owned();
    }
    error.to_string().to_lowercase()
}
