//! The exceptions file: what the rule "all of it was root:root" does not say.
//!
//! Text, so that an administrator can read it. A header line, then batches. A batch is one line
//! `batch BYTES CHECK` and BYTES bytes of exceptions, one a line: `UID GID MODE SPECIAL PATH`, numbers
//! decimal but MODE octal (permission bits, 12 of them). SPECIAL is `-`, or for a file that loses something by
//! a change of owner `SHA256,CAPABILITIES,SIZE` (its content's digest, zeros when it is too large for one; the value of
//! `security.capability` in hex, possibly empty; and its bytes; older versions wrote no `,SIZE`). PATH is relative to
//! the root, bytes outside printable ASCII, `%` and the space written `%XX`; the root itself is `.`. CHECK is the first
//! 16 hex digits of the SHA-256 of those BYTES bytes.
//!
//! A batch is on the disk before an inode in it is changed, so a batch that a power cut tore says nothing that is
//! needed: it is cut off when the file is opened again. A broken batch with a sound one behind it cannot come
//! about that way and is an error.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::system::files::sync_parent;

const HEADER: &[u8] = b"nix-unroot exceptions 1\n";
const MARK: &[u8] = b"batch ";
/// No batch that this program writes comes near it; a length above it is damage.
const LONGEST_BATCH: usize = 64 << 20;
/// How much of the file is searched at a time.
const STEP: usize = 1 << 20;

/// An inode that was not plain root:root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Relative to the root of the tree, as bytes; empty for the root itself.
    pub path: Vec<u8>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, with set-uid, set-gid and sticky.
    pub mode: u32,
    /// For a file that loses set-uid, set-gid or capabilities by a change of owner.
    pub special: Option<Special>,
}

/// What a change of owner takes from a file, and what must be true to give it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Special {
    /// SHA-256 of the content. The new owner can rewrite the file, so the bits go back only to the same bytes. Zeros, which are
    /// no content's, when it was too large.
    pub digest: [u8; 32],
    /// The value of the extended attribute `security.capability`; empty when there was none.
    pub capabilities: Vec<u8>,
    /// How many bytes the content has, so that one of another size need not be read; `None` in a record of an older version.
    pub size: Option<u64>,
}

impl Exception {
    /// How many bytes it takes in the file, at most: a byte of its path may take three.
    pub fn most_text(&self) -> usize {
        // Three numbers, a digest, and what stands between them.
        let capabilities = self.special.as_ref().map_or(0, |special| special.capabilities.len());
        3 * self.path.len() + 2 * capabilities + 160
    }
}

/// The file, open for more exceptions.
#[derive(Debug)]
pub struct Writer {
    file: File,
}

impl Writer {
    /// Opens the file, or makes it (mode 0600), and cuts off a torn end. On return the file is durable.
    ///
    /// # Errors
    /// The system's reason, or `InvalidData` when it is not such a file, or damaged otherwise than by a power cut.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let sound = read_batches(&mut file, |_| Ok(()))?;
        file.set_len(sound)?;
        file.seek(SeekFrom::Start(sound))?;
        if sound == 0 {
            file.write_all(HEADER)?;
        }
        file.sync_all()?;
        sync_parent(&std::path::absolute(path)?)?;
        Ok(Self { file })
    }

    /// Appends the exceptions as one batch; on return they survive a power cut.
    ///
    /// # Errors
    /// The system's reason; and when it would be longer than any batch that is read again.
    pub fn append<'a>(&mut self, exceptions: impl Iterator<Item = &'a Exception>) -> io::Result<()> {
        let mut body = Vec::new();
        for exception in exceptions {
            write_line(exception, &mut body);
            if body.len() > LONGEST_BATCH {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a batch too long to be read again"));
            }
        }
        let mut batch = format!("batch {} {}\n", body.len(), check(&body)).into_bytes();
        batch.append(&mut body);
        self.file.write_all(&batch)?;
        self.file.sync_data()
    }
}

/// Calls `each` for every exception in the file, in the order of writing, one batch in memory at a time.
///
/// # Errors
/// The system's reason, or `InvalidData` as with [`Writer::open`]; and the first error of `each`.
pub fn read(path: &Path, each: impl FnMut(Exception) -> io::Result<()>) -> io::Result<()> {
    read_batches(&mut File::open(path)?, each).map(drop)
}

/// Returns how many bytes of the file are sound; 0 when even the header is missing.
fn read_batches(file: &mut File, mut each: impl FnMut(Exception) -> io::Result<()>) -> io::Result<u64> {
    let mut header = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    Read::take(&mut *file, HEADER.len() as u64).read_to_end(&mut header)?;
    if header != HEADER {
        // A power cut just after creation leaves a part of the header, or zeros in its place.
        let unwritten = HEADER.starts_with(&header) || header.iter().all(|&byte| byte == 0);
        return if unwritten && !sound_batch_behind(file, 0)? { Ok(0) } else { Err(not_ours()) };
    }
    let mut sound = HEADER.len() as u64;
    loop {
        file.seek(SeekFrom::Start(sound))?;
        let Some((length, body)) = read_batch(file)? else { break };
        for line in body.split_inclusive(|&byte| byte == b'\n') {
            each(parse_line(line).ok_or_else(damaged)?)?;
        }
        sound += length;
    }
    if sound_batch_behind(file, sound)? { Err(damaged()) } else { Ok(sound) }
}

/// The batch at the file's position: how long it is with its first line, and its body. `None` when it is torn.
fn read_batch(file: &mut File) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut start = Vec::new();
    Read::take(&mut *file, 64).read_to_end(&mut start)?;
    let Some((line, wanted_check, length)) = parse_mark(&start) else { return Ok(None) };
    file.seek_relative(line as i64 - start.len() as i64)?;
    let mut body = Vec::new();
    Read::take(&mut *file, length as u64).read_to_end(&mut body)?;
    let whole = body.len() == length && check(&body).as_bytes() == wanted_check;
    Ok(whole.then_some(((line + length) as u64, body)))
}

/// `batch BYTES CHECK\n`: the line's length, CHECK, BYTES.
fn parse_mark(start: &[u8]) -> Option<(usize, &[u8], usize)> {
    let end = start.iter().position(|&byte| byte == b'\n')?;
    let mut fields = start[..end].strip_prefix(MARK)?.split(|&byte| byte == b' ');
    let length = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    (length <= LONGEST_BATCH).then_some((end + 1, fields.next()?, length))
}

/// Whether some sound batch starts behind `torn`.
fn sound_batch_behind(file: &mut File, torn: u64) -> io::Result<bool> {
    let (mut start, mut window) = (torn, Vec::new());
    loop {
        window.clear();
        file.seek(SeekFrom::Start(start))?;
        Read::take(&mut *file, STEP as u64).read_to_end(&mut window)?;
        for at in (0..window.len()).filter(|&at| window[at..].starts_with(MARK)) {
            file.seek(SeekFrom::Start(start + at as u64))?;
            if read_batch(file)?.is_some() {
                return Ok(true);
            }
        }
        if window.len() < STEP {
            return Ok(false);
        }
        // A mark may lie across the end.
        start += (STEP - MARK.len() + 1) as u64;
    }
}

fn check(body: &[u8]) -> String {
    hex(&Sha256::digest(body)[..8])
}

fn write_line(exception: &Exception, out: &mut Vec<u8>) {
    let Exception { path, uid, gid, mode, special } = exception;
    let special = match special {
        Some(Special { digest, capabilities, size }) => {
            let size = size.map_or(String::new(), |size| format!(",{size}"));
            format!("{},{}{size}", hex(digest), hex(capabilities))
        }
        None => "-".to_owned(),
    };
    out.extend_from_slice(format!("{uid} {gid} {mode:o} {special} ").as_bytes());
    for &byte in if path.is_empty() { b"." } else { &path[..] } {
        match byte {
            b'!'..=b'~' if byte != b'%' => out.push(byte),
            _ => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    out.push(b'\n');
}

fn parse_line(line: &[u8]) -> Option<Exception> {
    let text = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let mut fields = text.split(' ');
    let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
    let special = match fields.next()? {
        "-" => None,
        special => {
            let mut parts = special.split(',');
            let digest = unhex(parts.next()?)?.try_into().ok()?;
            let capabilities = unhex(parts.next()?)?;
            let size = match parts.next() {
                Some(size) => Some(size.parse().ok()?),
                None => None,
            };
            if parts.next().is_some() {
                return None;
            }
            Some(Special { digest, capabilities, size })
        }
    };
    let path = match fields.next()? {
        "." => Vec::new(),
        escaped => unescape(escaped)?,
    };
    let safe =
        path.is_empty() || path.split(|&byte| byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."));
    (safe && fields.next().is_none()).then_some(Exception { path, uid, gid, mode, special })
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = |at| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).map(digits).collect()
}

fn not_ours() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not an exceptions file that this version can read")
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "damaged: a batch in the middle fails its check")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exception(path: &[u8], special: Option<Special>) -> Exception {
        Exception { path: path.to_vec(), uid: 0, gid: 30000, mode: 0o1775, special }
    }

    fn all(path: &Path) -> io::Result<Vec<Exception>> {
        let mut found = Vec::new();
        read(path, |exception| {
            found.push(exception);
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn every_byte_of_a_name_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exceptions");
        let strange: Vec<u8> = (1..=255).filter(|&byte| byte != b'/').collect();
        let special = |size| Special { digest: [7; 32], capabilities: vec![1, 0, 255], size };
        let written = [
            exception(&strange, Some(special(Some(8)))),
            exception(b"old", Some(special(None))),
            exception(b"", None),
            exception(b"a/%41/batch 3 0", None),
        ];
        let mut writer = Writer::open(&path).unwrap();
        writer.append(written[..1].iter()).unwrap();
        drop(writer);
        Writer::open(&path).unwrap().append(written[1..].iter()).unwrap();
        assert_eq!(all(&path).unwrap(), written);
    }

    #[test]
    fn a_torn_end_is_cut_off_wherever_it_was_torn_and_a_torn_middle_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exceptions");
        let written = [exception(b"one", None), exception(b"two", None), exception(b"three", None)];
        let mut ends = vec![];
        for exception in &written {
            Writer::open(&path).unwrap().append([exception].into_iter()).unwrap();
            ends.push(std::fs::metadata(&path).unwrap().len() as usize);
        }
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            drop(Writer::open(&path).unwrap());
            let sound = ends.iter().filter(|&&end| end <= cut).count();
            assert_eq!(all(&path).unwrap(), written[..sound], "cut at {cut}");
        }
        for at in ends[1]..ends[2] {
            let mut zeroed = whole.clone();
            zeroed[at] = 0;
            std::fs::write(&path, &zeroed).unwrap();
            assert_eq!(all(&path).unwrap(), written[..2], "zero at {at}");
        }
        for at in 0..ends[1] {
            let mut broken = whole.clone();
            broken[at] ^= 1;
            std::fs::write(&path, &broken).unwrap();
            assert_eq!(all(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "flipped at {at}");
            assert!(Writer::open(&path).is_err(), "flipped at {at}");
        }
        assert!(parse_line(b"0 0 755 - ../etc/shadow\n").is_none());
        assert!(parse_line(b"0 0 755 - a//b\n").is_none());
        for (size, sound) in [("", true), (",7", true), (",", false), (",-7", false), (",7,7", false)] {
            let line = format!("0 0 4755 {},{size} a\n", "0".repeat(64));
            assert_eq!(parse_line(line.as_bytes()).is_some(), sound, "{line}");
        }
    }

    #[test]
    fn a_batch_that_could_not_be_read_again_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exceptions");
        let (long, short) = (exception(&vec![b'a'; 1 << 20], None), exception(b"b", None));
        let mut writer = Writer::open(&path).unwrap();
        assert!(writer.append(std::iter::repeat_n(&long, 65)).is_err());
        writer.append([&long, &short].into_iter()).unwrap();
        assert_eq!(all(&path).unwrap(), [long, short]);
    }

    #[test]
    fn a_sound_batch_far_behind_a_broken_one_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exceptions");
        drop(Writer::open(&path).unwrap());
        let header = std::fs::read(&path).unwrap();
        Writer::open(&path).unwrap().append([&exception(b"one", None)].into_iter()).unwrap();
        let batch = std::fs::read(&path).unwrap()[header.len()..].to_vec();
        for broken in (STEP - 2 * MARK.len()..STEP + MARK.len()).chain([3 * STEP]) {
            std::fs::write(&path, [&header[..], &vec![b'x'; broken], &batch].concat()).unwrap();
            assert!(Writer::open(&path).is_err(), "{broken} bytes before it");
            std::fs::write(&path, [&header[..], &vec![b'x'; broken], &batch[1..]].concat()).unwrap();
            drop(Writer::open(&path).unwrap());
            assert_eq!(std::fs::read(&path).unwrap(), header, "{broken} bytes before none");
        }
    }
}
