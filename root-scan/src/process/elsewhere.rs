//! What lies in the store although no name shows it: held through a mount that no process can see any more (lazily unmounted, or
//! outside of everybody's root directory), of a part of a store path. Such a thing is known by its device and inode.
//!
//! Nearly everything that is held can be ruled out without walking the store:
//!
//! - What lies on another device than the store.
//! - What is reached through a mount that stands in some table: the name or the table shows the store path.
//! - A mapped file, of which the kernel tells device and inode but no mount, that is found where its name says.
//!
//! A process can lead us to a file system that never answers. So a child is asked ([`crate::helper`]), and what does not answer is not the
//! store's, which did.

use std::collections::{HashMap, HashSet};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::errno::Errno;

use super::inside;
use super::names::{Mapped, Mounted};
use super::one::locked;
use crate::doubt::Doubt;
use crate::helper::Helper;
use crate::look::{Eyes, Held, Outcome};
use crate::roots::Roots;
use crate::store_path::STORE_DIR;
use crate::sys::{self, Thing};

/// What all threads of a scan know of the places of things.
#[derive(Debug)]
pub struct Elsewhere<'a> {
    eyes: Mutex<&'a mut Helper>,
    /// The root directory of process 1, as a path below `/proc`.
    init: PathBuf,
    /// `None` where there is no store.
    store: Option<Store>,
    /// Those of all tables, by their numbers.
    mounts: Mutex<HashMap<u64, Mounted>>,
    /// Inodes of mapped files on the store's device that lie where their names say.
    placed: Mutex<HashSet<u64>>,
    /// What may be in the store: inode and, where it is known, mount, with the place where it is held.
    suspects: Mutex<HashMap<(u64, Option<u64>), PathBuf>>,
}

#[derive(Debug)]
struct Store {
    thing: Thing,
    /// As tables of mounts have it.
    mounted: Mounted,
}

impl<'a> Elsewhere<'a> {
    /// Looks at the store. `mounts` are those that process 1 sees.
    ///
    /// # Errors
    /// When the store cannot be seen.
    pub fn new(proc: &Path, eyes: &'a mut Helper, mounts: HashMap<u64, Mounted>) -> Result<Self, Doubt> {
        let init = proc.join("1/root");
        let place = Held { path: below(&init, Path::new(STORE_DIR)), name: STORE_DIR.into() };
        let store = match eyes.look(&[place])?.pop() {
            Some(Outcome::Thing(thing)) => {
                let listed = thing.mount.and_then(|mount| mounts.get(&mount).copied());
                let mounted = listed.unwrap_or(Mounted { device: thing.device, overlay: false });
                Some(Store { thing, mounted })
            }
            Some(Outcome::Unseen(Errno::ENOENT | Errno::ENOTDIR)) => None,
            Some(Outcome::Unseen(errno)) => return Err(Doubt::unreadable(STORE_DIR, errno)),
            _ => return Err(Doubt::unreadable(STORE_DIR, Errno::EIO)),
        };
        let (mounts, placed, suspects) = (Mutex::new(mounts), Mutex::default(), Mutex::default());
        Ok(Self { eyes: Mutex::new(eyes), init, store, mounts, placed, suspects })
    }

    /// Learns of a mount.
    pub fn mount(&self, mount: Option<(u64, Mounted)>) {
        locked(&self.mounts).extend(mount);
    }

    /// Whether it is worth a look where a mapped file lies.
    pub fn may_be_inside(&self, mapped: &Mapped<'_>) -> bool {
        self.store.as_ref().is_some_and(|store| store.mounted.device == mapped.device)
            && !locked(&self.placed).contains(&mapped.inode)
    }

    /// Looks what these links lead to, and forgets them.
    ///
    /// # Errors
    /// When looking is broken.
    pub fn links(&self, links: &mut Vec<Held>) -> Result<(), Doubt> {
        let Some(store) = &self.store else {
            links.clear();
            return Ok(());
        };
        for (link, outcome) in links.iter().zip(self.look(links)?) {
            if let Some(thing) = seen(&link.path, outcome)?
                && thing.device == store.thing.device
                && !self.is_listed(thing.mount)
            {
                locked(&self.suspects).insert((thing.inode, thing.mount), link.path.clone());
            }
        }
        links.clear();
        Ok(())
    }

    /// Looks whether the mapped files of `process` lie where their names say, and forgets them: seen from process 1, then from its own root
    /// directory.
    ///
    /// # Errors
    /// When looking is broken.
    pub fn mapped(
        &self,
        process: &Path,
        files: &mut Vec<(u64, PathBuf)>,
        is_gone: impl Fn() -> bool,
    ) -> Result<(), Doubt> {
        for root in [&self.init, &process.join("root")] {
            let held: Vec<_> =
                files.iter().map(|(_, name)| Held { path: below(root, name), name: name.clone() }).collect();
            let mut left = Vec::new();
            for ((inode, name), outcome) in files.drain(..).zip(self.look(&held)?) {
                if seen(&name, outcome)?.is_some_and(|thing| self.is(&thing, inode)) {
                    locked(&self.placed).insert(inode);
                } else {
                    left.push((inode, name));
                }
            }
            *files = left;
        }
        // Held by nobody now; and a file without any name is not in the store.
        if !files.is_empty() && !is_gone() {
            let lost = files
                .drain(..)
                .filter(|(_, name)| !name.as_os_str().as_encoded_bytes().ends_with(b" (deleted)"));
            locked(&self.suspects).extend(lost.map(|(inode, _)| ((inode, None), process.join("maps"))));
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
        if suspects.is_empty() {
            return Ok(());
        }
        let wanted = suspects.into_iter().map(|((inode, _), place)| (inode, place)).collect();
        let directory = sys::find(root, Path::new(STORE_DIR)).and_then(|found| sys::open_dir(found, "."));
        let directory: OwnedFd = directory.map_err(|errno| Doubt::unreadable(STORE_DIR, errno))?;
        inside::find(directory, &wanted, store.mounted.overlay, roots)
    }

    fn look(&self, held: &[Held]) -> Result<Vec<Outcome>, Doubt> {
        if held.is_empty() { Ok(Vec::new()) } else { locked(&self.eyes).look(held) }
    }

    fn is_listed(&self, mount: Option<u64>) -> bool {
        mount.is_some_and(|mount| locked(&self.mounts).contains_key(&mount))
    }

    /// Whether this is the file of the store's device with that inode, as `maps` tells both.
    fn is(&self, thing: &Thing, inode: u64) -> bool {
        let listed = thing.mount.and_then(|mount| locked(&self.mounts).get(&mount).copied());
        let listed = listed.unwrap_or(Mounted { device: thing.device, overlay: false });
        let device = self.store.as_ref().map(|store| store.mounted.device);
        thing.inode == inode && (listed.overlay || Some(listed.device) == device)
    }
}

/// What a look at something that is held gave. An error of its file system's is none of the store's, and what is gone is not held.
fn seen(place: &Path, outcome: Outcome) -> Result<Option<Thing>, Doubt> {
    match outcome {
        Outcome::Thing(thing) => Ok(Some(thing)),
        Outcome::Unseen(errno @ (Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE)) => {
            Err(Doubt::unreadable(place, errno))
        }
        _ => Ok(None),
    }
}

fn below(root: &Path, absolute: &Path) -> PathBuf {
    root.join(absolute.strip_prefix("/").unwrap_or(absolute))
}
