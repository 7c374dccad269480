//! Unpacking, in a child with the rights of the store's owner and nothing else.
//!
//! The child reads the archive from its standard input and writes below one directory, which is its own. Each directory
//! that an entry lies in must have come from the archive as a directory before, and everything is made anew, so no link is
//! ever followed. Owners, set-id bits, time stamps and attributes of the archive are not looked at: files get what Nix gives
//! to everything in its store (`canonicalisePathMetaData` of Nix's `src/libstore/posix-fs-canonicalise.cc`).

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs::{DirBuilder, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};
use nix::sys::time::TimeSpec;
use tar::EntryType;

use super::ahead;
use super::contents::Contents;
use super::place::{Place, place, stays_in_store};
use crate::system::kernel;
use crate::types::StorePath;

/// The command of the child.
pub const UNPACK_COMMAND: &str = "internal-unpack-archive";

/// What the first bytes of an xz file are (the .xz file format, section 2.1.1.1).
const XZ_MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
/// Memory for decompression; archives of Nix need less than 70 MiB (`xz -9`).
const XZ_MEMORY: u64 = 256 << 20;
/// Memory of the whole child, where that can be limited.
const MEMORY: u64 = 1 << 30;
/// How much of a file is written at once, in bytes.
const AT_ONCE: u64 = 256 << 10;
/// The time stamp of everything in a store, in seconds since 1970 (`mtimeStore` of Nix).
const STORE_TIME: Duration = Duration::from_secs(1);

/// How much an archive may hold. One of Nix 2.34 has about 5,000 entries and 130 MB.
#[derive(Clone, Copy, Debug)]
struct Limits {
    bytes: u64,
    entries: u64,
    text_bytes: u64,
}

const LIMITS: Limits = Limits { bytes: 4 << 30, entries: 1_000_000, text_bytes: 16 << 20 };

/// The child: unpacks standard input below the directory that it is given, and prints [`Contents`] as JSON.
pub fn child_main(args: &[OsString]) -> u8 {
    let work = || -> Result<()> {
        let [directory] = args else { bail!("{UNPACK_COMMAND} takes a directory") };
        kernel::limit_memory(MEMORY).context("cannot limit the child's memory")?;
        let contents = unpack(io::stdin(), Path::new(directory), LIMITS)?;
        serde_json::to_writer(io::stdout().lock(), &contents).context("cannot report")
    };
    match work() {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error:#}");
            1
        }
    }
}

/// Unpacks the archive's store below `directory`, each store path under its own name.
fn unpack(archive: impl Read + Send, directory: &Path, limits: Limits) -> Result<Contents> {
    ahead::read(plain(archive)?, |plain| unpack_plain(plain, directory, limits))
}

/// The archive without its compression.
fn plain<'a>(mut archive: impl Read + Send + 'a) -> Result<Box<dyn Read + Send + 'a>> {
    let mut magic = Vec::new();
    archive
        .by_ref()
        .take(XZ_MAGIC.len() as u64)
        .read_to_end(&mut magic)
        .context("cannot read the archive")?;
    let is_xz = magic == XZ_MAGIC;
    let whole = io::Cursor::new(magic).chain(archive);
    if !is_xz {
        return Ok(Box::new(whole));
    }
    let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED).context("cannot set xz up")?;
    Ok(Box::new(XzDecoder::new_stream(whole, stream)))
}

fn unpack_plain(plain: impl Read, directory: &Path, limits: Limits) -> Result<Contents> {
    let mut tar = tar::Archive::new(Limited { inner: plain, left: limits.bytes });
    let mut tree = Tree { directory: directory.to_owned(), ..Tree::default() };
    let (mut registration, mut installer) = (None, None);
    for (index, entry) in tar.entries().context("this is no tar archive")?.enumerate() {
        let mut entry = entry.context("the archive is damaged")?;
        ensure!((index as u64) < limits.entries, "the archive has more than {} entries", limits.entries);
        let name = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&name).escape_debug().to_string();
        let place = place(&name).with_context(|| format!("the archive's entry \"{shown}\" is refused"))?;
        match place {
            Place::Registration => registration = Some(text(&mut entry, limits)?),
            Place::Installer => installer = Some(text(&mut entry, limits)?),
            Place::Store(path, rest) => tree
                .add(&path, &rest, &mut entry)
                .with_context(|| format!("the archive's entry \"{shown}\" is refused"))?,
            Place::Other => {}
        }
    }
    // To the end: only there does the compressed form say whether it was whole.
    io::copy(&mut tar.into_inner(), &mut io::sink()).context("the archive is damaged")?;
    tree.finish()?;
    let contents = Contents::new(
        &installer.context("the archive has no `install`")?,
        registration.context("the archive has no `.reginfo`")?,
        tree.paths,
    )?;
    let program = directory.join(contents.nix.base_name()).join("bin/nix-store");
    ensure!(program.symlink_metadata().is_ok(), "the archive's {} has no bin/nix-store", contents.nix);
    Ok(contents)
}

fn text(entry: &mut impl Read, limits: Limits) -> Result<String> {
    let mut text = String::new();
    entry.take(limits.text_bytes + 1).read_to_string(&mut text).context("the archive is damaged")?;
    ensure!(text.len() as u64 <= limits.text_bytes, "a text of the archive is too long");
    Ok(text)
}

/// What was made so far.
#[derive(Debug, Default)]
struct Tree {
    directory: PathBuf,
    /// In the order in which they were made, parents first.
    directories: Vec<PathBuf>,
    known: HashSet<PathBuf>,
    paths: BTreeSet<StorePath>,
}

impl Tree {
    fn add(&mut self, path: &StorePath, rest: &Path, entry: &mut tar::Entry<'_, impl Read>) -> Result<()> {
        let top = self.directory.join(path.base_name());
        let target = if rest.as_os_str().is_empty() { top } else { top.join(rest) };
        if rest.as_os_str().is_empty() {
            ensure!(self.paths.insert(path.clone()), "it is there twice");
        } else {
            let made = target.parent().is_some_and(|parent| self.known.contains(parent));
            ensure!(made, "its directory did not come before it");
        }
        match entry.header().entry_type() {
            EntryType::Directory => {
                DirBuilder::new().mode(0o700).create(&target)?;
                self.known.insert(target.clone());
                self.directories.push(target);
                Ok(())
            }
            EntryType::Regular => write(&target, entry),
            EntryType::Symlink => {
                let link = entry.link_name_bytes().unwrap_or_default().into_owned();
                ensure!(stays_in_store(path, rest, &link), "it is a link that leads out of the store");
                symlink(std::ffi::OsStr::from_bytes(&link), &target)?;
                set_link_time(&target)
            }
            other => bail!("it is neither a file, a directory nor a symbolic link, but {other:?}"),
        }
    }

    /// Directories get mode and time stamp when nothing is put into them any more: children first.
    fn finish(&self) -> Result<()> {
        for path in self.directories.iter().rev() {
            let directory = File::open(path)?;
            directory.set_permissions(Permissions::from_mode(0o555))?;
            directory.set_times(store_times())?;
        }
        Ok(())
    }
}

fn write(target: &Path, entry: &mut tar::Entry<'_, impl Read>) -> Result<()> {
    let size = entry.size();
    let executable = entry.header().mode()? & 0o100 != 0;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
    // With a buffer of its own the copy needs no system call for every few kilobytes.
    let mut file = BufWriter::with_capacity(size.clamp(1, AT_ONCE) as usize, file);
    let written = io::copy(entry, &mut file)?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    ensure!(written == size, "the archive ends in the middle of it");
    file.set_permissions(Permissions::from_mode(if executable { 0o555 } else { 0o444 }))?;
    Ok(file.set_times(store_times())?)
}

fn store_times() -> FileTimes {
    let time = SystemTime::UNIX_EPOCH + STORE_TIME;
    FileTimes::new().set_accessed(time).set_modified(time)
}

fn set_link_time(link: &Path) -> Result<()> {
    let time = TimeSpec::from_duration(STORE_TIME);
    let no_follow = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
    Ok(nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, link, &time, &time, no_follow)?)
}

/// A reader that fails where more comes than was allowed: a small archive can hold a large file.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other("the archive holds more than is allowed"))?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
