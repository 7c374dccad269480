//! The last good target of every indirect root, for the time when it cannot be seen: a home that is not mounted, a server that
//! does not answer. Without it, an absent link would look like a removed one.
//!
//! One text file in a directory of the scanner's own. A file that is not exactly what was written is a doubt: what stood in it
//! may be the only trace of a root.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::doubt::Doubt;
use crate::look::Mount;
use crate::store_path::StorePath;

/// Where the unit keeps it (`StateDirectory=`).
pub const DIRECTORY: &str = "/var/lib/nix-root-scan";
/// Larger than any real one, and small enough for the unit's memory limit.
pub const MAX_BYTES: usize = 32 << 20;
/// Room for the last line, which counts and proves the others.
const LAST_LINE: usize = "end 18446744073709551615 0123456789abcdef\n".len();

const FILE: &str = "remembered";
const HEADER: &str = "nix-root-scan remembers 1";

/// One root that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// The path of the second link, in somebody's home.
    pub target: PathBuf,
    /// Where that lay.
    pub mount: Mount,
    /// Uid of its owner.
    pub owner: u32,
    /// What it kept alive.
    pub path: StorePath,
    /// Since when it cannot be seen, in seconds since 1970; `None` while it can.
    pub lost: Option<u64>,
}

/// What is there now at the target of a remembered root.
#[derive(Debug)]
pub enum Sight<'a> {
    /// A root.
    Root(Remembered),
    /// No root, says the file system.
    Nothing(&'a Mount),
    /// Cannot be seen.
    Unseen,
}

/// All of them, by the path of the first link.
#[derive(Debug, Default)]
pub struct Memory {
    /// The key is a path, as bytes: those are compared much faster.
    roots: BTreeMap<OsString, Vec<Remembered>>,
    changed: bool,
    /// Holds the lock on the directory.
    directory: Option<(PathBuf, File)>,
}

impl Memory {
    /// Reads it, for looking only. Nothing is remembered where there is no directory.
    ///
    /// # Errors
    /// When it is not readable or damaged.
    pub fn read(directory: &Path) -> Result<Self, Doubt> {
        let file = directory.join(FILE);
        let text = match fs::metadata(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Ok(status) if status.len() > MAX_BYTES as u64 => return Err(too_much(&file)),
            _ => fs::read(&file).map_err(|error| unreadable(&file, &error))?,
        };
        let roots = parse(&text).ok_or(Doubt::Damaged(file))?;
        Ok(Self { roots, ..Self::default() })
    }

    /// Reads it and keeps everybody else from changing it until dropped.
    ///
    /// # Errors
    /// As [`Memory::read`]; also when there is no directory.
    pub fn open(directory: &Path) -> Result<Self, Doubt> {
        let lock = File::open(directory).map_err(|error| unreadable(directory, &error))?;
        lock.lock().map_err(|error| unreadable(directory, &error))?;
        Ok(Self { directory: Some((directory.to_owned(), lock)), ..Self::read(directory)? })
    }

    /// Takes note of what is at `target` now, and returns what was there on file systems that cannot be seen now.
    pub fn observe(&mut self, link: &Path, target: &Path, sight: &Sight<'_>, now: u64) -> Vec<Remembered> {
        let (mount, seen) = match sight {
            Sight::Root(root) => (&root.mount, Some(root)),
            Sight::Nothing(mount) => (*mount, None),
            Sight::Unseen => (&None, None),
        };
        let mut lost = Vec::new();
        let known = match self.roots.get_mut(link.as_os_str()) {
            Some(known) => known,
            None if seen.is_none() => return lost,
            None => self.roots.entry(link.into()).or_default(),
        };
        let mut fresh = seen.cloned();
        known.retain_mut(|root| {
            if root.target.as_os_str() != target.as_os_str() {
                return true;
            }
            if seen == Some(&*root) {
                fresh = None;
                return true;
            }
            let here = root.mount.is_some() && root.mount == *mount;
            // A root on a file system of which we do not know which it is replaces the one of before.
            if here || (seen.is_some() && root.mount.is_none() && mount.is_none()) {
                self.changed = true;
                return false;
            }
            self.changed |= root.lost.is_none();
            root.lost.get_or_insert(now);
            lost.push(root.clone());
            true
        });
        if let Some(fresh) = fresh {
            self.changed = true;
            add(known, fresh);
        }
        lost
    }

    /// Forgets what `link` led to except for `targets`: it was pointed elsewhere.
    pub fn retarget(&mut self, link: &Path, targets: &[PathBuf]) {
        if let Some(known) = self.roots.get_mut(link.as_os_str()) {
            let before = known.len();
            known.retain(|root| targets.contains(&root.target));
            self.changed |= known.len() != before;
        }
    }

    /// Forgets every root for which `which` says so. Returns how many.
    pub fn forget(&mut self, mut which: impl FnMut(&Path, &Remembered) -> bool) -> usize {
        let mut count = 0;
        for (link, known) in &mut self.roots {
            known.retain(|root| {
                let gone = which(Path::new(link), root);
                count += usize::from(gone);
                !gone
            });
        }
        self.changed |= count > 0;
        count
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (&Path, &Remembered)> {
        self.roots.iter().flat_map(|(link, known)| known.iter().map(move |root| (Path::new(link), root)))
    }

    /// Writes it where it was opened, if it changed; then it stays, also when power fails.
    ///
    /// # Errors
    /// When it cannot be written, or has grown too large.
    pub fn save(&mut self) -> Result<(), Doubt> {
        let Some((directory, lock)) = self.directory.as_ref().filter(|_| self.changed) else { return Ok(()) };
        let new = directory.join("remembered.new");
        let write = || {
            let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            let mut file = BufWriter::new(file);
            self.write(&mut file)?;
            file.into_inner()?.sync_all()?;
            fs::rename(&new, directory.join(FILE))?;
            lock.sync_all()
        };
        write().map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::FileTooLarge => too_much(&directory.join(FILE)),
            kind => Doubt::Unwritable { what: new.clone(), error: kind.to_string() },
        })?;
        self.changed = false;
        Ok(())
    }

    /// The text of the file. Line by line: there may be very many.
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let (mut count, mut sum, mut length) = (0, EMPTY, 0);
        let mut put = |line: String| {
            sum = checksum(sum, line.as_bytes());
            length += line.len();
            if length > MAX_BYTES - LAST_LINE {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            out.write_all(line.as_bytes())
        };
        put(format!("{HEADER}\n"))?;
        for (link, root) in self.all() {
            let lost = root.lost.map_or("-".to_owned(), |time| time.to_string());
            let mount = root.mount.as_ref().map_or("-".to_owned(), |mount| escaped(mount));
            let path = escaped(root.path.base_name());
            let (link, target) =
                (escaped(link.as_os_str().as_bytes()), escaped(root.target.as_os_str().as_bytes()));
            put(format!("{lost} {} {mount} {link} {target} {path}\n", root.owner))?;
            count += 1;
        }
        writeln!(out, "end {count} {sum:016x}")
    }
}

/// Nearly every link has one root, and there may be very many links: so no room for more.
fn add(known: &mut Vec<Remembered>, root: Remembered) {
    known.reserve_exact(1);
    known.push(root);
}

/// The roots in the text of a file; `None` when it is damaged.
pub fn parse(text: &[u8]) -> Option<BTreeMap<OsString, Vec<Remembered>>> {
    let text = str::from_utf8(text).ok()?;
    let body = text.strip_suffix('\n')?.rfind('\n').map(|at| &text[..=at])?;
    let mut lines = body.split_terminator('\n');
    if lines.next() != Some(HEADER) {
        return None;
    }
    let mut roots: BTreeMap<OsString, Vec<Remembered>> = BTreeMap::new();
    let mut count = 0_usize;
    for line in lines {
        let (link, root) = parse_line(line)?;
        add(roots.entry(link.into()).or_default(), root);
        count += 1;
    }
    let end = format!("end {count} {:016x}\n", checksum(EMPTY, body.as_bytes()));
    (text[body.len()..] == end).then_some(roots)
}

fn parse_line(line: &str) -> Option<(PathBuf, Remembered)> {
    let fields: Vec<_> = line.split(' ').collect();
    let [lost, owner, mount, link, target, path] = fields[..] else { return None };
    let absolute = |text| {
        let path = PathBuf::from(OsString::from_vec(unescaped(text)?));
        path.is_absolute().then_some(path)
    };
    let root = Remembered {
        target: absolute(target)?,
        // No mount is called "-", however it is written.
        mount: if mount == "-" { None } else { Some(unescaped(mount).filter(|mount| mount != b"-")?) },
        owner: owner.parse().ok()?,
        path: StorePath::from_base_name(&unescaped(path)?)?,
        lost: if lost == "-" { None } else { Some(lost.parse().ok()?) },
    };
    Some((absolute(link)?, root))
}

fn escaped(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text {
        match byte {
            b'!'..=b'~' if *byte != b'\\' => out.push(char::from(*byte)),
            _ => out.push_str(&format!("\\{byte:02x}")),
        }
    }
    out
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    if !text.bytes().all(|byte| matches!(byte, b'!'..=b'~')) {
        return None;
    }
    let mut parts = text.split('\\');
    let mut out = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        out.push(u8::from_str_radix(digits, 16).ok().filter(|byte| *byte != 0)?);
        out.extend_from_slice(rest.as_bytes());
    }
    (!out.is_empty()).then_some(out)
}

/// What FNV-1a begins with.
const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a of what `sum` is of, and `text` behind it: against bad disks, not bad people.
fn checksum(sum: u64, text: &[u8]) -> u64 {
    text.iter().fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn too_much(file: &Path) -> Doubt {
    Doubt::Limit { what: "bytes of remembered roots", limit: MAX_BYTES, at: file.to_owned() }
}

fn unreadable(what: &Path, error: &io::Error) -> Doubt {
    Doubt::unreadable(what, Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO)))
}

/// For `crate::fuzz`: what can be read is written and read again without a change.
#[cfg(any(test, fuzzing))]
pub(crate) fn check(text: &[u8]) {
    if let Some(roots) = parse(text) {
        let again = Memory { roots, ..Memory::default() };
        let mut text = Vec::new();
        again.write(&mut text).expect("it was in a text that is not larger");
        assert_eq!(parse(&text), Some(again.roots));
    }
}

/// For `crate::fuzz`: these lines between a header and an end that fit.
#[cfg(any(test, fuzzing))]
pub(crate) fn sealed(lines: &[u8]) -> Vec<u8> {
    let mut text = format!("{HEADER}\n").into_bytes();
    text.extend_from_slice(lines);
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    let count = text.iter().filter(|byte| **byte == b'\n').count() - 1;
    let sum = checksum(EMPTY, &text);
    text.extend_from_slice(format!("end {count} {sum:016x}\n").as_bytes());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(c: char, mount: &str) -> Remembered {
        let base = format!("{}-{c}", c.to_string().repeat(32));
        Remembered {
            target: "/home/a b/\n\\result".into(),
            mount: (!mount.is_empty()).then(|| mount.into()),
            owner: 1000,
            path: StorePath::from_base_name(base.as_bytes()).unwrap(),
            lost: None,
        }
    }

    /// Which roots are reported from memory, and which are known afterwards, for each thing that can be seen.
    #[test]
    fn absent_is_not_deleted() {
        let (here, there) = (Some(b"here".to_vec()), Some(b"there".to_vec()));
        let link = Path::new("/auto/x");
        for (what, before, sight, reported, known) in [
            ("deleted", "here", Sight::Nothing(&here), "", ""),
            ("not mounted", "here", Sight::Nothing(&there), "a", "a"),
            ("mount unknown now", "here", Sight::Nothing(&None), "a", "a"),
            ("mount unknown before", "", Sight::Nothing(&here), "a", "a"),
            ("both unknown", "", Sight::Nothing(&None), "a", "a"),
            ("hung", "here", Sight::Unseen, "a", "a"),
            ("changed", "here", Sight::Root(root('b', "here")), "", "b"),
            ("other medium", "here", Sight::Root(root('b', "there")), "a", "ab"),
            ("the same", "here", Sight::Root(root('a', "here")), "", "a"),
        ] {
            let mut memory = Memory::default();
            let first = root('a', before);
            memory.observe(link, &first.target, &Sight::Root(first.clone()), 7);
            let letters = |roots: Vec<&Remembered>| -> String {
                roots.iter().map(|root| *root.path.base_name().last().unwrap() as char).collect()
            };
            let lost = memory.observe(link, &first.target, &sight, 8);
            assert_eq!(letters(lost.iter().collect()), reported, "{what}");
            assert!(lost.iter().all(|root| root.lost == Some(8)), "{what}");
            assert_eq!(letters(memory.all().map(|(_, root)| root).collect()), known, "{what}");
        }
    }

    #[test]
    fn every_damage_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let mut memory = Memory::open(directory.path()).unwrap();
        for (number, c) in ['a', 'b'].into_iter().enumerate() {
            let root = root(c, "/ / ext4 /dev/sda1 7");
            memory.observe(Path::new(&format!("/x{number}")), &root.target, &Sight::Root(root.clone()), 0);
        }
        memory.save().unwrap();
        let expected = memory.roots.clone();
        drop(memory);
        assert_eq!(Memory::read(directory.path()).unwrap().roots, expected);
        let file = directory.path().join(FILE);
        let good = fs::read(&file).unwrap();
        for length in 0..good.len() {
            assert!(parse(&good[..length]).is_none(), "cut at {length}");
            let mut bad = good.clone();
            bad[length] ^= 1;
            assert!(parse(&bad).is_none(), "flipped at {length}");
        }
        fs::write(&file, &good[1..]).unwrap();
        assert!(matches!(Memory::open(directory.path()), Err(Doubt::Damaged(_))));
        assert!(matches!(Memory::open(&directory.path().join("none")), Err(Doubt::Unreadable { .. })));
    }

    #[test]
    fn forgets_what_it_is_told_to() {
        let mut memory = Memory::default();
        let root = root('a', "here");
        memory.observe(Path::new("/x"), &root.target, &Sight::Root(root.clone()), 0);
        memory.retarget(Path::new("/x"), std::slice::from_ref(&root.target));
        assert_eq!(memory.forget(|_, root| root.lost.is_some()), 0);
        assert_eq!(memory.forget(|link, _| link == Path::new("/x")), 1);
        assert_eq!(memory.all().count(), 0);
    }

    #[test]
    fn nothing_is_written_that_is_too_much_to_read() {
        let written = |target: usize| {
            let mut big = root('b', "");
            big.target = "x".repeat(target).into();
            let memory = Memory { roots: BTreeMap::from([("l".into(), vec![big])]), ..Memory::default() };
            let mut text = Vec::new();
            memory.write(&mut text).map(|()| text.len())
        };
        let most = MAX_BYTES - (written(0).unwrap() - "end 1 0123456789abcdef\n".len()) - LAST_LINE;
        assert!((MAX_BYTES - LAST_LINE..=MAX_BYTES).contains(&written(most).unwrap()));
        assert_eq!(written(most + 1).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
