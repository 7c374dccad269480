//! What lies at a path in somebody's home, and on which file system; and which file a process holds. Any of these calls may hang for ever,
//! so the service only makes them in a child that it can kill ([`crate::helper`]).

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::doubt::Doubt;
use crate::sys::Thing;

/// What is asked of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What lies there, seen from the root directory of process 1: any outcome but a thing.
    Lies,
    /// Which file has that name, seen from the root directory that a link of `/proc` leads to (`/proc/7/root/name`): a thing. Nothing may be a
    /// symlink below that.
    Named,
}

impl Kind {
    const ALL: [(Self, u8); 2] = [(Self::Lies, b'l'), (Self::Named, b'n')];

    /// As it is sent.
    pub fn letter(self) -> u8 {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, letter)| *letter)
    }

    /// The reverse; `None` for any other.
    pub fn from_letter(letter: u8) -> Option<Self> {
        Self::ALL.iter().find(|(_, of)| *of == letter).map(|(kind, _)| *kind)
    }
}

/// Looks paths up.
pub trait Eyes {
    /// One outcome for each path, in order.
    ///
    /// # Errors
    /// When looking itself is broken; what cannot be seen is an [`Outcome::Unseen`].
    fn look(&mut self, kind: Kind, paths: &[PathBuf]) -> Result<Vec<Outcome>, Doubt>;
}

/// A file system where it is mounted: mount point, what of it, type, source and its own id, as one text. It stays the same when
/// the same medium is mounted there again. `None` where it is not known; that equals nothing.
pub type Mount = Option<Vec<u8>>;

/// What a look at a path gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A symlink.
    Link {
        /// Its text.
        text: OsString,
        /// Where it lies.
        mount: Mount,
        /// Uid of its owner.
        owner: u32,
    },
    /// A link of `/proc`, which leads out of any root and lasts no longer than its process.
    Magic(OsString),
    /// Something else.
    Other(Mount),
    /// Nothing, as this file system says, on which the nearest existing parent lies.
    Absent(Mount),
    /// Not to be seen now. `ETIMEDOUT` when the look-up hung.
    Unseen(Errno),
    /// Which file a path leads to.
    Thing(Thing),
}

/// Looks without a child, for the child itself and for tests.
pub use direct::Direct;

#[cfg(target_os = "linux")]
#[path = "look/linux.rs"]
mod direct;
#[cfg(target_os = "macos")]
#[path = "look/macos.rs"]
mod direct;

/// What is given up together with `path` when it hangs: its mount, as the table of mounts has it.
pub use direct::mount_of;

impl Eyes for Direct<'_> {
    fn look(&mut self, kind: Kind, paths: &[PathBuf]) -> Result<Vec<Outcome>, Doubt> {
        Ok(paths.iter().map(|path| self.one(kind, path)).collect())
    }
}

#[cfg(any(target_os = "linux", test, fuzzing))]
/// Mount point, root, type and source of the mount `id` (`man 5 proc_pid_mountinfo`).
fn described(table: &[u8], id: u64) -> Option<Vec<u8>> {
    let line = table.split(|byte| *byte == b'\n').find(|line| line_id(line) == Some(id))?;
    let mut fields = line.split(|byte| *byte == b' ');
    let (root, point) = (fields.nth(3)?, fields.next()?);
    let mut behind = fields.skip_while(|field| *field != b"-").skip(1);
    Some([point, root, behind.next()?, behind.next()?].join(&b' '))
}

#[cfg(any(target_os = "linux", test, fuzzing))]
fn line_id(line: &[u8]) -> Option<u64> {
    str::from_utf8(line.split(|byte| *byte == b' ').next()?).ok()?.parse().ok()
}

/// The longest mount point in a `mountinfo` table at or above `path`, by the text alone.
#[cfg(any(target_os = "linux", test, fuzzing))]
pub(crate) fn mount_point(table: &[u8], path: &Path) -> PathBuf {
    let points =
        table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    longest(points.map(unescaped), path)
}

/// The longest of these mount points at or above `path`, by the text alone.
fn longest(points: impl Iterator<Item = PathBuf>, path: &Path) -> PathBuf {
    let above = points.filter(|point| path.starts_with(point));
    above.max_by_key(|point| point.as_os_str().len()).unwrap_or_else(|| "/".into())
}

/// The kernel writes blanks and backslashes as three octal digits.
#[cfg(any(target_os = "linux", test, fuzzing))]
pub(crate) fn unescaped(text: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let octal = behind
            .get(..3)
            .filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..b'8').contains(d)));
        let value = octal.and_then(|d| u8::from_str_radix(str::from_utf8(d).ok()?, 8).ok());
        path.push(value.unwrap_or(*first));
        rest = if value.is_some() { &behind[3..] } else { behind };
    }
    OsString::from_vec(path).into()
}

/// An outcome as the child writes it: a letter and fields, each ended by NUL, which neither paths nor texts can hold.
pub fn encode(outcome: &Outcome) -> Vec<u8> {
    let mount = |mount: &Mount| mount.clone().unwrap_or_default();
    let number = |number: u64| number.to_string().into_bytes();
    let (letter, fields) = match outcome {
        Outcome::Link { text, mount: at, owner } => {
            (b'L', vec![text.as_bytes().to_vec(), mount(at), number((*owner).into())])
        }
        Outcome::Magic(text) => (b'M', vec![text.as_bytes().to_vec()]),
        Outcome::Other(at) => (b'O', vec![mount(at)]),
        Outcome::Absent(at) => (b'A', vec![mount(at)]),
        Outcome::Unseen(errno) => (b'U', vec![number((*errno as i32).unsigned_abs().into())]),
        Outcome::Thing(Thing { device: (major, minor), inode, mount }) => {
            let numbers = [(*major).into(), (*minor).into(), *inode].into_iter().chain(*mount);
            (b'T', numbers.map(number).collect())
        }
    };
    let mut text = vec![letter];
    for field in fields {
        text.extend_from_slice(&field);
        text.push(0);
    }
    text
}

/// The reverse of [`encode`]; `None` for anything else.
pub fn decode(text: &[u8]) -> Option<Outcome> {
    let (letter, fields) = text.split_first()?;
    let fields: Vec<_> = fields.strip_suffix(b"\0")?.split(|byte| *byte == 0).collect();
    let mount = |text: &[u8]| (!text.is_empty()).then(|| text.to_vec());
    let os = |text: &[u8]| OsString::from_vec(text.to_vec());
    let number = |text| str::from_utf8(text).ok()?.parse::<u64>().ok();
    let short = |text| u32::try_from(number(text)?).ok();
    Some(match (letter, &fields[..]) {
        (b'L', [text, at, owner]) => Outcome::Link { text: os(text), mount: mount(at), owner: short(owner)? },
        (b'M', [text]) => Outcome::Magic(os(text)),
        (b'O', [at]) => Outcome::Other(mount(at)),
        (b'A', [at]) => Outcome::Absent(mount(at)),
        (b'U', [errno]) => Outcome::Unseen(Errno::from_raw(number(errno)?.try_into().ok()?)),
        (b'T', [major, minor, inode, mount @ ..]) => {
            let mount = match mount {
                [] => None,
                [mount] => Some(number(mount)?),
                _ => return None,
            };
            Outcome::Thing(Thing { device: (short(major)?, short(minor)?), inode: number(inode)?, mount })
        }
        _ => return None,
    })
}

/// For `crate::fuzz`: reads every kind of number that there may be in a table of mounts.
#[cfg(any(test, fuzzing))]
pub(crate) fn check(table: &[u8]) {
    for line in table.split(|byte| *byte == b'\n') {
        if let Some(id) = line_id(line)
            && let Some(text) = described(table, id)
        {
            assert!(text.split(|byte| *byte == b' ').count() == 4 && !text.contains(&b'\n'));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::fcntl::AT_FDCWD;

    use super::*;
    use crate::sys;

    const TABLE: &[u8] = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        30 22 0:31 /x /home/a\\040b rw - nfs4 server:/x rw,vers=4.2\n\
        31 22 0:32 / /home rw shared:7 master:1 - autofs auto rw\nnonsense\n";

    #[test]
    fn reads_the_table_of_mounts() {
        assert_eq!(described(TABLE, 22).unwrap(), b"/ / ext4 /dev/sda1");
        assert_eq!(described(TABLE, 30).unwrap(), b"/home/a\\040b /x nfs4 server:/x");
        assert_eq!(described(TABLE, 7), None);
        for (path, point) in [("/home/a b/c", "/home/a b"), ("/home/ab", "/home"), ("/homes", "/")] {
            assert_eq!(mount_point(TABLE, Path::new(path)), Path::new(point), "{path}");
        }
    }

    #[test]
    fn outcomes_come_back_as_they_were() {
        let mount = Some(b"/ / ext4 /dev/sda1 7f".to_vec());
        for outcome in [
            Outcome::Link { text: OsString::from_vec(vec![0xff, b'\n']), mount: mount.clone(), owner: 1000 },
            Outcome::Link { text: "".into(), mount: None, owner: 0 },
            Outcome::Magic("/x".into()),
            Outcome::Other(mount.clone()),
            Outcome::Absent(None),
            Outcome::Absent(mount),
            Outcome::Unseen(Errno::ESTALE),
            Outcome::Thing(Thing { device: (8, 1), inode: u64::MAX, mount: Some(1 << 33) }),
            Outcome::Thing(Thing { device: (0, 0), inode: 0, mount: None }),
        ] {
            assert_eq!(decode(&encode(&outcome)), Some(outcome));
        }
        for bad in [
            &b""[..],
            b"L",
            b"L\0",
            b"U-1\0",
            b"A",
            b"Aa\0b\0",
            b"X\0",
            b"Lx\0\0z\0",
            b"T1\0",
            b"T1\x002\x003\x004\x005\0",
        ] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn tells_absent_from_there() {
        let top = tempfile::tempdir().unwrap();
        let root = sys::open_path(AT_FDCWD, "/").unwrap();
        let mut eyes = Direct::new(root.as_fd(), Path::new("/proc"));
        std::os::unix::fs::symlink("text", top.path().join("link")).unwrap();
        let Outcome::Link { text, mount, .. } = eyes.one(Kind::Lies, &top.path().join("link")) else {
            panic!()
        };
        assert_eq!(text, "text");
        assert!(mount.is_some());
        assert_eq!(eyes.one(Kind::Lies, top.path()), Outcome::Other(mount.clone()));
        assert_eq!(eyes.one(Kind::Lies, &top.path().join("no/such/thing")), Outcome::Absent(mount));
        assert_eq!(
            eyes.one(Kind::Lies, &top.path().join("link/below")),
            Outcome::Absent(None),
            "a dangling link"
        );
        std::fs::write(top.path().join("file"), "").unwrap();
        let below = eyes.one(Kind::Lies, &top.path().join("file/below"));
        assert!(matches!(below, Outcome::Absent(Some(_))), "{below:?}");
    }
}
