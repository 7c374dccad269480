//! The links below `gcroots` and `profiles`, by the rule of Nix's own collector (`LocalStore::findRoots` in
//! `src/libstore/gc.cc`), behind any directory permissions, and never changing anything.
//!
//! Users own directories in there and make links with any name and any target, so all of it is hostile. Only names and link
//! texts are read; nothing but directories below the two starting points is ever opened for reading.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use nix::dir::Type;
use nix::errno::Errno;
use nix::sys::stat::SFlag;

use crate::doubt::Doubt;
use crate::look::{Eyes, Kind, Outcome};
use crate::memory::{Memory, Remembered, Sight};
use crate::roots::{Place, Roots};
use crate::store_path::StorePath;
use crate::{store_path, sys};

/// Deeper than any tool nests its roots; each level holds two open files.
const MAX_DEPTH: usize = 64;
/// How often an entry may change its type under our eyes.
const ATTEMPTS: usize = 4;
/// More than any real machine has, and few enough for the unit's memory limit.
const MAX_LINKS: usize = 400_000;
/// Targets that are looked at together; bounds what is held of them.
const CHUNK: usize = 4096;
/// What the name begins with of a directory in which `nix-unroot verify` plants a root (`src/verify/sweep.rs`).
const PLANTED: &[u8] = b".nix-unroot-verify-";

/// Adds what the links below `gcroots` and `profiles` of `state_dir` (`/nix/var/nix`) keep alive, with all absolute paths seen
/// from the directory `root`, and what links kept alive whose targets `eyes` cannot see now.
///
/// # Errors
/// Anything that may hide a root. That includes a missing `gcroots` or `profiles`: the daemon makes both when it opens the
/// store, so one that is not there is one that we are not shown.
pub fn scan(
    root: BorrowedFd<'_>,
    state_dir: &Path,
    eyes: &mut impl Eyes,
    memory: &mut Memory,
    roots: &mut Roots,
) -> Result<(), Doubt> {
    let mut walker = Walker { indirect: Vec::new(), roots };
    for name in ["gcroots", "profiles"] {
        let path = state_dir.join(name);
        let directory = sys::find(root, &path).and_then(|found| sys::open_dir(found, "."));
        walker.walk(directory.map_err(|errno| Doubt::unreadable(&path, errno))?, &path, 0)?;
    }
    let mut links = walker.indirect;
    adopt(&mut links, &state_dir.join("gcroots/auto"), memory);
    let mut doubt = None;
    links.chunks(CHUNK).try_for_each(|links| second_hops(links, eyes, memory, roots, &mut doubt))?;
    doubt.map_or(Ok(()), Err)
}

/// A link whose target is to be looked at.
struct Indirect {
    path: PathBuf,
    /// What it points to: by the text, as Nix does it, and where it holds a `..` also as the kernel does it. Where a directory
    /// before that is a symlink, these are two places.
    targets: Vec<PathBuf>,
}

/// Adds the links that are remembered, but gone. The daemon itself removes links in `auto` whose target it cannot find, so a home
/// that was not mounted then costs the link: its target is watched in the link's place. What is gone elsewhere was removed.
fn adopt(links: &mut Vec<Indirect>, auto: &Path, memory: &mut Memory) {
    let seen: HashSet<&OsStr> = links.iter().map(|link| link.path.as_os_str()).collect();
    memory.forget(|link, _| !seen.contains(link.as_os_str()) && link.parent() != Some(auto));
    let gone = memory.all().filter(|(link, _)| !seen.contains(link.as_os_str()));
    let gone: BTreeSet<_> = gone.map(|(link, root)| (link.to_owned(), root.target.clone())).collect();
    links.extend(gone.into_iter().map(|(path, target)| Indirect { path, targets: vec![target] }));
}

fn second_hops(
    links: &[Indirect],
    eyes: &mut impl Eyes,
    memory: &mut Memory,
    roots: &mut Roots,
    doubt: &mut Option<Doubt>,
) -> Result<(), Doubt> {
    let targets: Vec<_> = links.iter().flat_map(|link| link.targets.iter().cloned()).collect();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let mut outcomes = eyes.look(Kind::Lies, &targets)?.into_iter();
    for link in links {
        memory.retarget(&link.path, &link.targets);
        for target in &link.targets {
            let outcome = outcomes.next().unwrap_or(Outcome::Unseen(Errno::EIO));
            match second_hop(&link.path, target, outcome, now, memory, roots) {
                // The others are looked at all the same, and remembered.
                Err(never_seen @ Doubt::NeverSeen { .. }) => *doubt = doubt.take().or(Some(never_seen)),
                result => result?,
            }
        }
    }
    Ok(())
}

fn second_hop(
    link: &Path,
    target: &Path,
    outcome: Outcome,
    now: u64,
    memory: &mut Memory,
    roots: &mut Roots,
) -> Result<(), Doubt> {
    let by_text = clean(Path::new("/"), target.as_os_str());
    let end = |text: &OsStr| {
        let end = clean(by_text.parent().unwrap_or(Path::new("/")), text);
        store_path::containing(end.as_os_str().as_bytes()).and_then(StorePath::from_base_name)
    };
    let place = || join_hops(link, target);
    let mut unseen = None;
    let sight = match &outcome {
        Outcome::Link { text, mount, owner } => match end(text) {
            Some(path) => {
                roots.add_seen(path.base_name(), || Place { owner: Some(*owner), ..place().into() })?;
                if is_planted(target, *owner) {
                    return Ok(());
                }
                let (target, mount) = (target.to_owned(), mount.clone());
                Sight::Root(Remembered { target, mount, owner: *owner, path, lost: None })
            }
            None => Sight::Nothing(mount),
        },
        Outcome::Magic(text) => match end(text) {
            Some(path) => return roots.add(path.base_name(), place),
            None => return Ok(()),
        },
        // There, but not a link, or not there any more.
        Outcome::Other(mount) | Outcome::Absent(mount) => Sight::Nothing(mount),
        Outcome::Unseen(errno) => {
            unseen = Some(*errno);
            Sight::Unseen
        }
        // Answers another question.
        Outcome::Thing(_) => {
            unseen = Some(Errno::EIO);
            Sight::Unseen
        }
    };
    let lost = memory.observe(link, target, &sight, now);
    for root in &lost {
        let place = || Place { owner: Some(root.owner), lost: root.lost, ..place().into() };
        roots.add_seen(root.path.base_name(), place)?;
    }
    match unseen {
        // A path that the kernel resolves for nobody keeps nothing alive, if it never did.
        None | Some(Errno::ELOOP | Errno::ENAMETOOLONG) => Ok(()),
        Some(_) if !lost.is_empty() => Ok(()),
        // Refused (a FUSE mount of a user, NFS with root squashed), locked, disconnected, hung: it may be there.
        Some(errno) => Err(Doubt::NeverSeen { link: link.to_owned(), target: target.to_owned(), errno }),
    }
}

/// Whether root planted this to see that it keeps its path alive. That is gone with the check, or with the next one when the check
/// was killed; but were it remembered, and did the disk get another name at a boot in between, it would be kept for ever.
fn is_planted(target: &Path, owner: u32) -> bool {
    let directory = target.parent().and_then(Path::file_name);
    owner == 0 && directory.is_some_and(|name| name.as_bytes().starts_with(PLANTED))
}

struct Walker<'a> {
    indirect: Vec<Indirect>,
    roots: &'a mut Roots,
}

impl Walker<'_> {
    fn walk(&mut self, directory: OwnedFd, path: &Path, depth: usize) -> Result<(), Doubt> {
        if depth > MAX_DEPTH {
            return Err(Doubt::Limit {
                what: "levels of directories",
                limit: MAX_DEPTH,
                at: path.to_owned(),
            });
        }
        let wrap = |errno| Doubt::unreadable(path, errno);
        let listed = directory.try_clone().map_err(|_| wrap(Errno::EMFILE))?;
        sys::list(listed, wrap, |entry| {
            self.entry(directory.as_fd(), path, entry.file_name(), entry.file_type(), depth)
        })
    }

    /// One directory entry. Others rename and replace entries while we look, so what turns out to be no longer what the listing
    /// said is looked at again.
    fn entry(
        &mut self,
        directory: BorrowedFd<'_>,
        parent: &Path,
        name: &CStr,
        mut kind: Option<Type>,
        depth: usize,
    ) -> Result<(), Doubt> {
        let path = || parent.join(OsStr::from_bytes(name.to_bytes()));
        for _ in 0..ATTEMPTS {
            let outcome = match kind {
                Some(Type::Symlink) => match sys::read_link(directory, name) {
                    Ok(target) => return self.link(parent, path(), &target),
                    Err(errno) => errno,
                },
                Some(Type::Directory) => match sys::open_dir(directory, name) {
                    Ok(below) => return self.walk(below, &path(), depth + 1),
                    Err(errno) => errno,
                },
                Some(Type::File) => return self.roots.add(name.to_bytes(), path),
                Some(_) => return Ok(()),
                None => Errno::EINVAL,
            };
            match outcome {
                Errno::ENOENT => return Ok(()),
                // No longer a link, no longer a directory, or a file system that does not tell types when listing.
                Errno::EINVAL | Errno::ENOTDIR | Errno::ELOOP => {}
                errno => return Err(Doubt::unreadable(path(), errno)),
            }
            kind = match sys::status(directory, name) {
                Ok(status) => Some(file_type(status.st_mode)),
                Err(Errno::ENOENT) => return Ok(()),
                Err(errno) => return Err(Doubt::unreadable(path(), errno)),
            };
        }
        Err(Doubt::Unsteady(path()))
    }

    /// A link into the store is a root; a link to a link into the store is an indirect one. Nix looks no further.
    fn link(&mut self, parent: &Path, path: PathBuf, target: &OsStr) -> Result<(), Doubt> {
        let absolute = clean(parent, target);
        if let Some(base) = store_path::containing(absolute.as_os_str().as_bytes()) {
            return self.roots.add(base, || path.clone());
        }
        let mut targets = vec![absolute];
        if target.as_bytes().windows(2).any(|two| two == b"..") {
            targets.push(parent.join(target));
        }
        if self.indirect.len() >= MAX_LINKS {
            return Err(Doubt::Limit { what: "indirect roots", limit: MAX_LINKS, at: path });
        }
        // There may be very many, and paths are made with room to grow.
        self.indirect.push(Indirect { path: tight(path), targets: targets.into_iter().map(tight).collect() });
        Ok(())
    }
}

/// `target` as seen from `parent`, absolute, without `.`, `..`, and double or trailing slashes, by the text alone (`absPath`
/// and `canonPath` in `src/libutil/file-system.cc`).
pub(crate) fn clean(parent: &Path, target: &OsStr) -> PathBuf {
    let mut path = PathBuf::from("/");
    for component in parent.join(target).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    path
}

fn tight(mut path: PathBuf) -> PathBuf {
    path.shrink_to_fit();
    path
}

fn join_hops(path: &Path, target: &Path) -> PathBuf {
    let mut both = path.as_os_str().to_owned();
    both.push(" -> ");
    both.push(target);
    both.into()
}

fn file_type(mode: nix::libc::mode_t) -> Type {
    match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
        SFlag::S_IFDIR => Type::Directory,
        SFlag::S_IFLNK => Type::Symlink,
        SFlag::S_IFREG => Type::File,
        _ => Type::Fifo,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::fcntl::AT_FDCWD;

    use super::*;
    use crate::look::Direct;

    /// Without a child, and with nothing remembered.
    fn scan(root: BorrowedFd<'_>, state_dir: &Path, roots: &mut Roots) -> Result<(), Doubt> {
        let mut eyes = Direct::new(root, Path::new("/proc"));
        super::scan(root, state_dir, &mut eyes, &mut Memory::default(), roots)
    }

    fn base(c: char) -> String {
        format!("{}-{c}", c.to_string().repeat(32))
    }

    fn slash() -> OwnedFd {
        sys::open_path(AT_FDCWD, "/").unwrap()
    }

    /// A state directory with what the closure puts there; returns the last letters of the roots found.
    fn found(make: impl Fn(&Path)) -> Result<String, Doubt> {
        let top = tempfile::tempdir().unwrap();
        let top = top.path().canonicalize().unwrap();
        for directory in ["state/gcroots/auto", "state/gcroots/per-user/alice", "state/profiles", "home"] {
            fs::create_dir_all(top.join(directory)).unwrap();
        }
        make(&top);
        let mut roots = Roots::with_places();
        scan(slash().as_fd(), &top.join("state"), &mut roots)?;
        let mut names: Vec<_> = roots.paths().map(|path| *path.base_name().last().unwrap() as char).collect();
        names.sort_unstable();
        Ok(names.into_iter().collect())
    }

    fn store(c: char) -> String {
        format!("/nix/store/{}", base(c))
    }

    #[test]
    fn links_that_are_roots() {
        let found = found(|top| {
            let (roots, home) = (top.join("state/gcroots"), top.join("home"));
            symlink(store('a'), roots.join("direct")).unwrap();
            symlink(store('b') + "/bin/below", roots.join("per-user/alice/.hidden")).unwrap();
            symlink(store('c'), home.join("result")).unwrap();
            symlink(home.join("result"), roots.join("auto/indirect")).unwrap();
            symlink(store('d'), home.join("result-d")).unwrap();
            symlink("../../../home/./result-d/", roots.join("auto/relative\n")).unwrap();
            symlink(store('f'), top.join("state/profiles/default-1-link")).unwrap();
            symlink("default-1-link", top.join("state/profiles/default")).unwrap();
            fs::write(roots.join(base('g')), "").unwrap();
            symlink(format!("//nix/./x/../store//{}", base('h')), roots.join("untidy")).unwrap();
            symlink(format!("../../../../../../../../../../../nix/store/{}", base('i')), home.join("up"))
                .unwrap();
            symlink(home.join("up"), roots.join("auto/to-relative")).unwrap();
            fs::create_dir_all(home.join("real/sub")).unwrap();
            symlink(store('j'), home.join("real/result")).unwrap();
            symlink(home.join("real/sub"), home.join("short")).unwrap();
            symlink(home.join("short/../result"), roots.join("auto/by-kernel")).unwrap();
        });
        assert_eq!(found.unwrap(), "abcdfghij");
    }

    #[test]
    fn links_that_are_none() {
        let found = found(|top| {
            let (roots, home) = (top.join("state/gcroots"), top.join("home"));
            symlink("/nowhere", roots.join("auto/stale")).unwrap();
            symlink("auto", roots.join("self")).unwrap();
            symlink("loop", roots.join("loop")).unwrap();
            symlink("x".repeat(300), roots.join("long")).unwrap();
            symlink("/nix/store/", roots.join("store")).unwrap();
            symlink(format!("/home{}", store('a')), roots.join("elsewhere")).unwrap();
            fs::write(roots.join("file"), store('a')).unwrap();
            fs::create_dir(roots.join(base('b'))).unwrap();
            fs::write(home.join("file"), store('c')).unwrap();
            symlink(home.join("file"), roots.join("auto/to-file")).unwrap();
            symlink(home.join("file/x"), roots.join("auto/through-file")).unwrap();
            nix::unistd::mkfifo(&roots.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
            symlink(roots.join("fifo"), roots.join("to-fifo")).unwrap();
            // A third hop, and a directory behind a symlink: Nix does not go there either.
            symlink(store('d'), home.join("three")).unwrap();
            symlink(home.join("three"), home.join("two")).unwrap();
            symlink(home.join("two"), roots.join("auto/one")).unwrap();
            fs::create_dir(home.join("tree")).unwrap();
            symlink(store('f'), home.join("tree/link")).unwrap();
            symlink(home.join("tree"), roots.join("tree")).unwrap();
        });
        assert_eq!(found.unwrap(), "");
    }

    /// Looks, and says that everything belongs to `owner`.
    struct Owned<'a>(Direct<'a>, u32);

    impl Eyes for Owned<'_> {
        fn look(&mut self, kind: Kind, paths: &[PathBuf]) -> Result<Vec<Outcome>, Doubt> {
            let mut outcomes = self.0.look(kind, paths)?;
            for outcome in &mut outcomes {
                if let Outcome::Link { owner, .. } = outcome {
                    *owner = self.1;
                }
            }
            Ok(outcomes)
        }
    }

    #[test]
    fn what_a_check_planted_is_alive_and_not_remembered() {
        let top = tempfile::tempdir().unwrap();
        for directory in ["gcroots/auto", "profiles", ".nix-unroot-verify-1f", "home"] {
            fs::create_dir_all(top.path().join(directory)).unwrap();
        }
        for (c, directory) in [('a', ".nix-unroot-verify-1f"), ('b', "home")] {
            let link = top.path().join(directory).join("root");
            symlink(store(c), &link).unwrap();
            symlink(&link, top.path().join("gcroots/auto").join(c.to_string())).unwrap();
        }
        for (owner, remembered) in [(0, vec!["home"]), (1000, vec![".nix-unroot-verify-1f", "home"])] {
            let slash = slash();
            let mut eyes = Owned(Direct::new(slash.as_fd(), Path::new("/proc")), owner);
            let (mut memory, mut roots) = (Memory::default(), Roots::new());
            super::scan(slash.as_fd(), top.path(), &mut eyes, &mut memory, &mut roots).unwrap();
            assert_eq!(roots.paths().count(), 2, "uid {owner}");
            let of = |root: &Remembered| root.target.parent()?.file_name()?.to_str().map(str::to_owned);
            let known: Vec<_> = memory.all().filter_map(|(_, root)| of(root)).collect();
            assert_eq!(known, remembered, "uid {owner}");
        }
    }

    /// What a mount namespace hides is seen all the same: absolute paths, and absolute links on the way, begin at `root`.
    #[test]
    fn begins_at_the_given_root() {
        let top = tempfile::tempdir().unwrap();
        for directory in ["nix/var/nix/gcroots/auto", "nix/var/nix/profiles", "data/alice"] {
            fs::create_dir_all(top.path().join(directory)).unwrap();
        }
        symlink("/data", top.path().join("home")).unwrap();
        symlink(store('a'), top.path().join("data/alice/result")).unwrap();
        symlink("/home/alice/result", top.path().join("nix/var/nix/gcroots/auto/x")).unwrap();
        let mut roots = Roots::with_places();
        let root = sys::open_path(AT_FDCWD, top.path()).unwrap();
        scan(root.as_fd(), Path::new("/nix/var/nix"), &mut roots).unwrap();
        let places: Vec<_> = roots.places().map(|(_, place)| place.path.to_str().unwrap()).collect();
        assert_eq!(places, ["/nix/var/nix/gcroots/auto/x -> /home/alice/result"]);
    }

    #[test]
    fn doubts() {
        let missing = found(|top| fs::remove_dir(top.join("state/profiles")).unwrap()).unwrap_err();
        assert!(matches!(missing, Doubt::Unreadable { errno: Errno::ENOENT, .. }), "{missing}");
        let replaced = found(|top| {
            fs::remove_dir(top.join("state/profiles")).unwrap();
            symlink("/", top.join("state/profiles")).unwrap();
        });
        assert!(matches!(replaced, Err(Doubt::Unreadable { .. })), "{replaced:?}");
        let deep = found(|top| {
            fs::create_dir_all(top.join("state/gcroots").join("d/".repeat(MAX_DEPTH + 1))).unwrap();
        });
        assert!(matches!(deep, Err(Doubt::Limit { .. })), "{deep:?}");
    }

    #[test]
    fn too_many_roots_are_a_doubt() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("gcroots")).unwrap();
        fs::create_dir_all(top.path().join("profiles")).unwrap();
        for c in ['a', 'b', 'c'] {
            symlink(store(c), top.path().join("gcroots").join(c.to_string())).unwrap();
        }
        let doubt = scan(slash().as_fd(), top.path(), &mut Roots::new().limited(2)).unwrap_err();
        assert!(matches!(doubt, Doubt::Limit { limit: 2, .. }), "{doubt}");
    }

    #[test]
    fn cleans_by_the_text() {
        for (parent, target, expected) in [
            ("/a/b", "c", "/a/b/c"),
            ("/a/b", "../c/", "/a/c"),
            ("/a", "../../../c", "/c"),
            ("/a", "/x//./y/..", "/x"),
            ("/a", "..", "/"),
        ] {
            assert_eq!(clean(Path::new(parent), OsStr::new(target)), Path::new(expected), "{target}");
        }
    }
}
