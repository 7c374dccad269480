//! Both sources together.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::doubt::Doubt;
use crate::helper::{self, Helper};
use crate::memory::{self, Memory};
use crate::process::Processes;
use crate::roots::Roots;
use crate::{gcroots, sys};

/// Where to look.
#[derive(Debug, Clone)]
pub struct Places {
    /// Nix's state directory.
    pub state_dir: PathBuf,
    /// Where procfs is mounted.
    pub proc: PathBuf,
    /// Where absent roots are remembered.
    pub memory: PathBuf,
}

impl Places {
    /// With this state directory, and `/proc`.
    pub fn new(state_dir: impl AsRef<Path>) -> Self {
        Self {
            state_dir: state_dir.as_ref().to_owned(),
            proc: "/proc".into(),
            memory: memory::DIRECTORY.into(),
        }
    }
}

impl Default for Places {
    fn default() -> Self {
        Self::new("/nix/var/nix")
    }
}

/// Adds everything that is alive, and remembers the roots in homes.
///
/// # Errors
/// The first doubt. What was found before stays in `roots`, for people to read.
pub fn and_remember(places: &Places, roots: &mut Roots) -> Result<(), Doubt> {
    let mut memory = Memory::open(&places.memory)?;
    let scanned = everything(places, &mut memory, roots);
    // Before the answer: what was not remembered would be lost with the next unmount. In doubt, too: what was seen is there.
    let saved = memory.save();
    scanned.and(saved)
}

/// Remembers the roots in homes, and does nothing else.
///
/// # Errors
/// The first doubt; what could be seen is remembered all the same.
pub fn remember(places: &Places) -> Result<(), Doubt> {
    let mut memory = Memory::open(&places.memory)?;
    let scanned = init_root(places).and_then(|root| {
        let mut eyes = Helper::new(&places.proc, helper::LIMIT);
        gcroots::scan(root.as_fd(), &places.state_dir, &mut eyes, &mut memory, &mut Roots::new())
    });
    let saved = memory.save();
    scanned.and(saved)
}

/// Adds everything that is alive.
///
/// Links, processes, and links again, because what is alive moves while we look: a program is started through a link that is
/// then removed (so links before processes), or makes a link and ends (so links after processes).
///
/// Links are looked up from the root directory of process 1, so that a mount namespace of ours (a drop-in with `ProtectHome=`,
/// a home that was mounted later and not passed on) does not make a home look empty.
///
/// # Errors
/// The first doubt. What was found before stays in `roots`, for people to read.
pub fn everything(places: &Places, memory: &mut Memory, roots: &mut Roots) -> Result<(), Doubt> {
    let processes = Processes::open(&places.proc)?;
    let root = init_root(places)?;
    let mut eyes = Helper::new(&places.proc, helper::LIMIT);
    let mut links = |eyes: &mut Helper, roots: &mut Roots| {
        gcroots::scan(root.as_fd(), &places.state_dir, eyes, memory, roots)
    };
    links(&mut eyes, roots)?;
    processes.scan(root.as_fd(), &mut eyes, roots)?;
    links(&mut eyes, roots)
}

fn init_root(places: &Places) -> Result<OwnedFd, Doubt> {
    let root = sys::root_of_init(&places.proc);
    root.map_err(|errno| Doubt::unreadable(places.proc.join("1/root"), errno))
}
