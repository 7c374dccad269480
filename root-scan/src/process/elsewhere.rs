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
//! A process can hold something whose server never answers. So it is a child that looks ([`crate::helper`]), and no answer is a doubt; but for what
//! process 1 sees below a mount of a server, which is not asked.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

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
    /// The root directory of process 1, as a path below `/proc`.
    init: PathBuf,
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
    /// Looks at the store. `mounts` are those that process 1 sees.
    ///
    /// # Errors
    /// When the store cannot be seen.
    pub fn new(proc: &Path, eyes: &'a mut Helper, mounts: Mounts) -> Result<Self, Doubt> {
        let init = proc.join("1/root");
        let store = match eyes.look(Kind::Leads, &[below(&init, Path::new(STORE_DIR))])?.pop() {
            Some(Outcome::Thing(thing)) => {
                let mount = thing.mount.and_then(|mount| mounts.get(&mount).cloned());
                Some(Store { mount: mount.unwrap_or_else(|| Mount::of(thing.device)), thing })
            }
            Some(Outcome::Unseen(Errno::ENOENT | Errno::ENOTDIR)) => None,
            Some(Outcome::Unseen(errno)) => return Err(Doubt::unreadable(STORE_DIR, errno)),
            _ => return Err(Doubt::unreadable(STORE_DIR, Errno::EIO)),
        };
        let servers = mounts.values().filter_map(|mount| mount.server.clone()).collect();
        Ok(Self {
            eyes: Mutex::new(eyes),
            init,
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

    /// Whether it is worth a look what a link with this text leads to.
    pub fn may_be_hidden(&self, text: &OsStr) -> bool {
        text.as_bytes().starts_with(b"/")
            && !self.servers.iter().any(|mount| Path::new(text).starts_with(mount))
    }

    /// Whether it is worth a look where a mapped file lies.
    pub fn may_be_inside(&self, file: &Mapped) -> bool {
        self.store.as_ref().is_some_and(|store| store.may_be_on(file.device))
            && !locked(&self.placed).contains(&self.hasher.hash_one((file.inode, &file.name)))
    }

    /// Looks what these links lead to, and forgets them.
    ///
    /// # Errors
    /// What cannot be told.
    pub fn links(&self, links: &mut Vec<PathBuf>) -> Result<(), Doubt> {
        let Some(store) = &self.store else {
            links.clear();
            return Ok(());
        };
        for (link, outcome) in links.iter().zip(self.look(Kind::Leads, links)?) {
            if let Some(thing) = self.seen(link, outcome)?
                && store.may_be_on(thing.device)
                && !self.is_listed(thing.mount)
            {
                self.suspect((thing.inode, thing.mount), link)?;
            }
        }
        links.clear();
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
        for root in [&self.init, &process.join("root")] {
            let names: Vec<_> = files.iter().map(|file| below(root, &file.name)).collect();
            let mut left = Vec::new();
            for (file, outcome) in files.drain(..).zip(self.look(Kind::Named, &names)?) {
                if self.seen(&process.join("maps"), outcome)?.is_some_and(|thing| self.is(&thing, &file)) {
                    let mut placed = locked(&self.placed);
                    if placed.len() < MAX_PLACED {
                        placed.insert(self.hasher.hash_one((file.inode, &file.name)));
                    }
                } else {
                    left.push(file);
                }
            }
            *files = left;
        }
        // Held by nobody now; and a file without any name is not in the store.
        files.retain(|file| !file.name.as_os_str().as_bytes().ends_with(b" (deleted)"));
        if !files.is_empty() && !is_gone() {
            files.iter().try_for_each(|file| self.suspect((file.inode, None), &process.join("maps")))?;
        }
        files.clear();
        Ok(())
    }

    /// Adds the store paths that hold what is left. `root` is the root directory of process 1.
    ///
    /// # Errors
    /// What keeps the store from being read.
    pub fn find(&self, root: BorrowedFd<'_>, roots: &mut Roots) -> Result<(), Doubt> {
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
        let directory = sys::find(root, Path::new(STORE_DIR)).and_then(|found| sys::open_dir(found, "."));
        let directory = directory.map_err(|errno| Doubt::unreadable(STORE_DIR, errno))?;
        inside::find(directory, &wanted, store.mount.overlay, roots)
    }

    fn suspect(&self, key: (u64, Option<u64>), place: &Path) -> Result<(), Doubt> {
        let mut suspects = locked(&self.suspects);
        suspects.insert(key, place.to_owned());
        if suspects.len() > MAX_SUSPECTS {
            let at = place.to_owned();
            return Err(Doubt::Limit { what: "files that no name places", limit: MAX_SUSPECTS, at });
        }
        Ok(())
    }

    fn look(&self, kind: Kind, paths: &[PathBuf]) -> Result<Vec<Outcome>, Doubt> {
        if paths.is_empty() { Ok(Vec::new()) } else { locked(&self.eyes).look(kind, paths) }
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
    fn seen(&self, place: &Path, outcome: Outcome) -> Result<Option<Thing>, Doubt> {
        let ours = [Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE, Errno::ETIMEDOUT];
        let is_served = self.store.as_ref().is_some_and(|store| store.mount.server.is_some());
        match outcome {
            Outcome::Thing(thing) => Ok(Some(thing)),
            Outcome::Unseen(errno) if ours.contains(&errno) || (is_served && !gone(errno)) => {
                Err(Doubt::unreadable(place, errno))
            }
            _ => Ok(None),
        }
    }
}

fn below(root: &Path, absolute: &Path) -> PathBuf {
    root.join(absolute.strip_prefix("/").unwrap_or(absolute))
}
