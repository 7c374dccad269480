//! What lies in the store although no name shows it: held through a mount that no process can see any more (lazily unmounted, or
//! outside of everybody's root directory), of a part of a store path. Such a thing is known by its device and inode.
//!
//! Nearly everything that is held can be ruled out without walking the store:
//!
//! - What lies on another device than the store.
//! - What is reached through a mount that stands in some table: the name or the table shows the store path.
//! - A mapped file, of which the kernel tells device and inode but no mount, that is found where its name says, without a symlink on the way
//!   and on a mount that stands in some table.
//!
//! A process can lead us to a server that never answers. So names that process 1 does not see are looked up by a child ([`crate::helper`]), and no answer is a doubt. To look at what
//! a link of `/proc` leads to, no directory is searched, and only NFS and 9p ask their servers even then: what has a name below a mount of a server that
//! process 1 sees is taken to lie there.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::NixPath;
use nix::errno::Errno;

use super::inside;
use super::names::{Mapped, Mount};
use super::one::{gone, locked};
use crate::activation;
use crate::doubt::{Doubt, printable};
use crate::helper::Helper;
use crate::look::{Eyes, Kind, Outcome};
use crate::roots::Roots;
use crate::store_path::STORE_DIR;
use crate::sys::{self, Thing};

/// More things that may be in the store than any real machine has.
const MAX_SUSPECTS: usize = 10_000;
/// More mounts than any real machine has. What further ones lead to counts as hidden.
const MAX_MOUNTS: usize = 400_000;
/// Mapped files that need not be looked up again; more are looked up each time.
const MAX_PLACED: usize = 100_000;

/// Mounts by their numbers.
pub type Mounts = HashMap<u64, Mount>;

/// What all threads of a scan know of the places of things.
#[derive(Debug)]
pub struct Elsewhere<'a> {
    eyes: Mutex<&'a mut Helper>,
    /// The root directory of process 1.
    root: BorrowedFd<'a>,
    /// `None` where there is no store.
    store: Option<Store>,
    /// Where process 1 sees mounts of servers.
    servers: Vec<PathBuf>,
    /// Those of all tables.
    mounts: Mutex<Mounts>,
    /// Mapped files that lie where their names say: inode and name, as a number that nobody outside can foresee.
    placed: Mutex<HashSet<u64>>,
    hasher: RandomState,
    /// What may be in the store: inode and, where it is known, mount, with the place where it is held.
    suspects: Mutex<HashMap<(u64, Option<u64>), PathBuf>>,
}

#[derive(Debug)]
struct Store {
    thing: Thing,
    mount: Mount,
}

impl Store {
    /// Whether something on this device may be in the store. `maps` has the device of the table of mounts, or, with the kernels of some
    /// distributions, that of `stat`; on an overlay both can be that of a layer.
    fn may_be_on(&self, device: (u32, u32)) -> bool {
        self.mount.overlay || device == self.mount.device || device == self.thing.device
    }
}

impl<'a> Elsewhere<'a> {
    /// Looks at the store, seen from `root`, the root directory of process 1. `mounts` are those that it sees.
    ///
    /// # Errors
    /// When the store cannot be seen.
    pub fn new(root: BorrowedFd<'a>, eyes: &'a mut Helper, mounts: Mounts) -> Result<Self, Doubt> {
        let store = match sys::find(root, Path::new(STORE_DIR)).and_then(|store| sys::thing(store, "")) {
            Ok(thing) => {
                let mount = thing.mount.and_then(|mount| mounts.get(&mount).cloned());
                Some(Store { mount: mount.unwrap_or_else(|| Mount::of(thing.device)), thing })
            }
            Err(Errno::ENOENT | Errno::ENOTDIR) => None,
            Err(errno) => return Err(Doubt::unreadable(STORE_DIR, errno)),
        };
        let servers = mounts.values().filter_map(|mount| mount.server.clone()).collect();
        Ok(Self {
            eyes: Mutex::new(eyes),
            root,
            store,
            servers,
            mounts: Mutex::new(mounts),
            placed: Mutex::default(),
            hasher: RandomState::new(),
            suspects: Mutex::default(),
        })
    }

    /// Learns of a mount.
    pub fn mount(&self, mount: Option<(u64, Mount)>) {
        let mut mounts = locked(&self.mounts);
        if mounts.len() < MAX_MOUNTS {
            mounts.extend(mount);
        }
    }

    /// Whether it is worth a look where a mapped file lies.
    pub fn may_be_inside(&self, file: &Mapped) -> bool {
        self.store.as_ref().is_some_and(|store| store.may_be_on(file.device))
            && !locked(&self.placed).contains(&self.hasher.hash_one((file.inode, &file.name)))
    }

    /// Looks what a link of `/proc` leads to, whose text shows no store path.
    ///
    /// # Errors
    /// What cannot be told.
    pub fn link(
        &self,
        directory: BorrowedFd<'_>,
        name: &(impl NixPath + ?Sized),
        text: &OsStr,
        place: impl Fn() -> PathBuf,
    ) -> Result<(), Doubt> {
        let text = Path::new(text);
        let Some(store) = self.store.as_ref().filter(|_| text.is_absolute() && !self.is_served(text)) else {
            return Ok(());
        };
        let outcome = sys::thing(directory, name).map_or_else(Outcome::Unseen, Outcome::Thing);
        if let Some(thing) = self.seen(&place, outcome)?
            && store.may_be_on(thing.device)
            && !self.is_listed(thing.mount)
            // Memory that is open like a file lies on a mount of the kernel's own, which no table has.
            && !(text.as_os_str().as_bytes().ends_with(b" (deleted)") && sys::is_nameless(directory, name) == Ok(true))
        {
            self.suspect((thing.inode, thing.mount), place())?;
        }
        Ok(())
    }

    /// Looks whether the mapped files of `process` (or a thread) lie where their names say, and forgets them: seen from process 1, then from its own root
    /// directory.
    ///
    /// # Errors
    /// What cannot be told.
    pub fn mapped(
        &self,
        process: &Path,
        files: &mut Vec<Mapped>,
        is_gone: impl Fn() -> bool,
    ) -> Result<(), Doubt> {
        // What process 1 sees is no server's, and answers at once.
        self.sort(process, files, |files| {
            let seen = |file: &Mapped| match self.is_served(&file.name) {
                true => Outcome::Unseen(Errno::ENOENT),
                false => sys::find_plainly(self.root, relative(&file.name))
                    .and_then(|found| sys::thing(found, ""))
                    .map_or_else(Outcome::Unseen, Outcome::Thing),
            };
            Ok(files.iter().map(seen).collect())
        })?;
        self.sort(process, files, |files| {
            let root = process.join("root");
            let names: Vec<_> = files.iter().map(|file| root.join(relative(&file.name))).collect();
            if names.is_empty() { Ok(Vec::new()) } else { locked(&self.eyes).look(Kind::Named, &names) }
        })?;
        // Held by nobody now; and a file without any name is not in the store.
        files.retain(|file| !file.name.as_os_str().as_bytes().ends_with(b" (deleted)"));
        if !files.is_empty() && !is_gone() {
            files.iter().try_for_each(|file| self.suspect((file.inode, None), process.join("maps")))?;
        }
        files.clear();
        Ok(())
    }

    /// Adds the store paths that hold what is left.
    ///
    /// # Errors
    /// What keeps the store from being read.
    pub fn find(&self, roots: &mut Roots) -> Result<(), Doubt> {
        let Some(store) = &self.store else { return Ok(()) };
        let mut suspects = std::mem::take(&mut *locked(&self.suspects));
        suspects.retain(|(_, mount), _| !self.is_listed(*mount));
        let Some(first) = suspects.values().next() else { return Ok(()) };
        activation::log(format_args!(
            "the store is searched for {} file(s) that are held under other names, such as by {}",
            suspects.len(),
            printable(first)
        ));
        let wanted = suspects.into_iter().map(|((inode, _), place)| (inode, place)).collect();
        let directory =
            sys::find(self.root, Path::new(STORE_DIR)).and_then(|found| sys::open_dir(found, "."));
        let directory = directory.map_err(|errno| Doubt::unreadable(STORE_DIR, errno))?;
        inside::find(directory, &wanted, store.mount.overlay, roots)
    }

    fn suspect(&self, key: (u64, Option<u64>), at: PathBuf) -> Result<(), Doubt> {
        let mut suspects = locked(&self.suspects);
        if suspects.len() >= MAX_SUSPECTS && !suspects.contains_key(&key) {
            return Err(Doubt::Limit { what: "files that no name places", limit: MAX_SUSPECTS, at });
        }
        suspects.insert(key, at);
        Ok(())
    }

    /// Forgets those of the files that lie where they were looked for.
    fn sort(
        &self,
        process: &Path,
        files: &mut Vec<Mapped>,
        look: impl FnOnce(&[Mapped]) -> Result<Vec<Outcome>, Doubt>,
    ) -> Result<(), Doubt> {
        let outcomes = look(files)?;
        let mut left = Vec::new();
        for (file, outcome) in files.drain(..).zip(outcomes) {
            if self.seen(|| process.join("maps"), outcome)?.is_some_and(|thing| self.is(&thing, &file)) {
                let mut placed = locked(&self.placed);
                if placed.len() < MAX_PLACED {
                    placed.insert(self.hasher.hash_one((file.inode, &file.name)));
                }
            } else {
                left.push(file);
            }
        }
        *files = left;
        Ok(())
    }

    /// Whether that lies, as process 1 sees it, below a mount of a server.
    fn is_served(&self, name: &Path) -> bool {
        self.servers.iter().any(|mount| name.starts_with(mount))
    }

    fn is_listed(&self, mount: Option<u64>) -> bool {
        mount.is_some_and(|mount| locked(&self.mounts).contains_key(&mount))
    }

    /// Whether this is the mapped file, on a mount that stands in a table. Until Linux 6.8, `maps` shows the inode of an overlay's layer.
    fn is(&self, thing: &Thing, file: &Mapped) -> bool {
        let mount = thing.mount.and_then(|mount| locked(&self.mounts).get(&mount).cloned());
        let on = |mount: Mount| mount.overlay || [mount.device, thing.device].contains(&file.device);
        thing.inode == file.inode && mount.is_some_and(on)
    }

    /// What a look at something that is held gave: nothing where it is gone, or where a file system refuses that is not the store's.
    fn seen(&self, place: impl Fn() -> PathBuf, outcome: Outcome) -> Result<Option<Thing>, Doubt> {
        let ours = [Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE, Errno::ETIMEDOUT];
        let is_served = self.store.as_ref().is_some_and(|store| store.mount.server.is_some());
        match outcome {
            Outcome::Thing(thing) => Ok(Some(thing)),
            Outcome::Unseen(errno) if ours.contains(&errno) || (is_served && !gone(errno)) => {
                Err(Doubt::unreadable(place(), errno))
            }
            _ => Ok(None),
        }
    }
}

fn relative(absolute: &Path) -> &Path {
    absolute.strip_prefix("/").unwrap_or(absolute)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::{AsFd, AsRawFd};
    use std::time::Duration;

    use super::*;

    /// Where the store lies on an overlay, any device may be one of its layers.
    #[test]
    fn memory_that_is_open_like_a_file_is_not_searched_for() {
        let directory = tempfile::tempdir().unwrap();
        let root = File::open("/").unwrap();
        let mut eyes = Helper::new(Path::new("/proc"), Duration::from_secs(1));
        let thing = sys::thing(&root, "").unwrap();
        let elsewhere = Elsewhere {
            eyes: Mutex::new(&mut eyes),
            root: root.as_fd(),
            store: Some(Store { mount: Mount { overlay: true, ..Mount::of(thing.device) }, thing }),
            servers: Vec::new(),
            mounts: Mutex::default(),
            placed: Mutex::default(),
            hasher: RandomState::new(),
            suspects: Mutex::default(),
        };
        let held = File::open("/proc/self/fd").unwrap();
        let look = |file: &File| {
            let number = file.as_raw_fd().to_string();
            let text = fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
            elsewhere.link(held.as_fd(), number.as_str(), text.as_os_str(), || text.clone()).unwrap();
            locked(&elsewhere.suspects).len()
        };
        let memory = nix::sys::memfd::memfd_create("m", nix::sys::memfd::MFdFlags::empty()).unwrap();
        assert_eq!(look(&File::from(memory)), 0);
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        let file = File::create(&one).unwrap();
        fs::hard_link(&one, &other).unwrap();
        fs::remove_file(&one).unwrap();
        assert_eq!(look(&file), 1, "it has another name, which may lie in the store");
        fs::remove_file(&other).unwrap();
        locked(&elsewhere.suspects).clear();
        assert_eq!(look(&file), 0, "it has no name any more");
    }
}
