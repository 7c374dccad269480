//! A virtual machine's disk with a volatile write cache, and what a power cut leaves of it.
//!
//! Killing an emulator loses nothing: the host still has what was written. So the disk writes down every request, and
//! the medium after a cut is made from that: all that was flushed before it, and of the rest a random part, as a disk
//! reorders what lies in its cache. What the machine did after that instant never happened.

use super::exec::{self, host};
use super::image;
use super::nbd::{self, Disk};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a disk writes whole or not at all.
const SECTOR: u64 = 4096;

/// Bytes in the cache that count as much: beyond that, a large file would get all the cuts.
const MUCH: usize = 16 * SECTOR as usize;

/// A request that changes what is on the medium.
#[derive(Debug)]
enum Request {
    /// Bytes for `offset`, which lie at `position` of the log's data.
    Write {
        offset: u64,
        length: usize,
        position: u64,
        durable: bool,
    },
    Flush,
}

/// What was asked of the disk since [`LossyDisk::record`], and when.
#[derive(Debug)]
pub struct Log {
    requests: Vec<(Instant, Request)>,
    data: File,
    length: u64,
}

/// A disk that an emulator uses through a socket.
#[derive(Debug)]
pub struct LossyDisk {
    image: PathBuf,
    medium: Arc<Mutex<Medium>>,
}

#[derive(Debug)]
struct Medium {
    image: File,
    log: Option<Log>,
}

impl LossyDisk {
    /// Serves `image` at `socket` as long as this process lives.
    pub fn serve(image: &Path, socket: &Path) -> Result<LossyDisk> {
        let file = File::options().read(true).write(true).open(image)?;
        let medium = Arc::new(Mutex::new(Medium { image: file, log: None }));
        let listener = UnixListener::bind(socket).with_context(|| format!("cannot listen at {socket:?}"))?;
        let served = Arc::clone(&medium);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A machine that is killed hangs up in the middle of a request.
                let _ = nbd::serve(Client::new(client)?, &mut Shared(Arc::clone(&served)));
            }
            io::Result::Ok(())
        });
        Ok(LossyDisk { image: image.to_owned(), medium })
    }

    /// From here on every request is written down; what is on the disk now is copied to `base`, on which the
    /// requests build.
    pub fn record(&self, base: &Path) -> Result<()> {
        let mut medium = lock(&self.medium);
        copy(&self.image, base)?;
        medium.log = Some(Log { requests: Vec::new(), data: tempfile::tempfile()?, length: 0 });
        Ok(())
    }

    /// How many requests there were.
    pub fn requests(&self) -> usize {
        lock(&self.medium).log.as_ref().map_or(0, |log| log.requests.len())
    }

    /// Ends the recording.
    pub fn recorded(self) -> Result<Log> {
        lock(&self.medium).log.take().context("nothing was recorded")
    }
}

impl Log {
    /// How many requests there were `part` (0 to 1) of the time between two of them.
    pub fn at_time(&self, from: usize, to: usize, part: f64) -> usize {
        let (start, end) = (self.requests[from].0, self.requests[to - 1].0);
        let instant = start + (end - start).mul_f64(part);
        self.requests.partition_point(|(time, _)| *time < instant).clamp(from, to)
    }

    /// A number of requests between two of them, the more likely the more lies in the cache behind it, up to [`MUCH`].
    pub fn at_load(&self, from: usize, to: usize, random: &mut Random) -> usize {
        let mut cached = 0;
        let loads: Vec<_> = self.requests[from..to]
            .iter()
            .map(|(_, request)| {
                match request {
                    Request::Write { length, .. } => cached += length,
                    Request::Flush => cached = 0,
                }
                cached.min(MUCH)
            })
            .collect();
        let mut left = random.below(loads.iter().sum::<usize>().max(1));
        let behind = |load: &usize| {
            let here = left < *load;
            left = left.saturating_sub(*load);
            here
        };
        from + 1 + loads.iter().position(behind).unwrap_or(loads.len() - 1)
    }

    /// How many requests were to flush the cache.
    pub fn flushes(&self) -> usize {
        self.requests.iter().filter(|(_, request)| matches!(request, Request::Flush)).count()
    }

    fn bytes(&self, position: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.data.read_exact_at(&mut bytes, position)?;
        Ok(bytes)
    }
}

/// A lossy disk as a file of the host, which can be mounted: FUSE hands its reads, writes and flushes on.
#[derive(Debug)]
pub struct HostFile {
    daemon: Child,
}

impl HostFile {
    /// The disk that is served at `socket`, as the file `path`.
    pub fn new(socket: &Path, path: &Path) -> Result<HostFile> {
        image::need_host_programs(&[("qemu-storage-daemon", "qemu-utils"), ("losetup", "mount")])?;
        File::create(path)?;
        let disk = format!("driver=nbd,node-name=disk,server.type=unix,server.path={}", socket.display());
        let export = format!("type=fuse,id=e,node-name=disk,mountpoint={},writable=on", path.display());
        let mut daemon = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &disk, "--export", &export])
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start qemu-storage-daemon")?;
        let up = exec::poll(Duration::from_secs(60), || match daemon.try_wait() {
            Ok(None) => path.metadata().is_ok_and(|file| file.len() > 0).then_some(true),
            _ => Some(false),
        });
        ensure!(up == Some(true), "qemu-storage-daemon shows no file at {}", path.display());
        Ok(HostFile { daemon })
    }
}

impl Drop for HostFile {
    fn drop(&mut self) {
        // It takes its mount along; by SIGTERM, as only that is orderly.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(self.daemon.id().cast_signed()),
            nix::sys::signal::Signal::SIGTERM,
        );
        let _ = self.daemon.wait();
    }
}

/// What a power cut took.
#[derive(Debug, Default)]
pub struct Loss {
    /// Sectors that were in the cache.
    pub cached: usize,
    /// Those of them that got to the medium all the same.
    pub kept: usize,
}

/// Makes the media that cuts leave, the earliest cut first.
#[derive(Debug)]
pub struct Cuts<'a> {
    log: &'a Log,
    /// What is on the medium for certain, after `done` requests.
    durable: PathBuf,
    done: usize,
}

impl<'a> Cuts<'a> {
    /// `base` is changed: it is the medium on which the requests build.
    pub fn new(log: &'a Log, base: PathBuf) -> Self {
        Self { log, durable: base, done: 0 }
    }

    /// The medium after a cut behind the request number `at`, as `image`.
    pub fn cut(&mut self, at: usize, random: &mut Random, image: &Path) -> Result<Loss> {
        let before = &self.log.requests[self.done..at];
        let flushed = before.iter().rposition(|(_, request)| matches!(request, Request::Flush));
        let flushed = self.done + flushed.map_or(0, |last| last + 1);
        let durable = File::options().write(true).open(&self.durable)?;
        for (_, request) in &self.log.requests[self.done..flushed] {
            if let Request::Write { offset, length, position, .. } = request {
                durable.write_all_at(&self.log.bytes(*position, *length)?, *offset)?;
            }
        }
        self.done = flushed;
        copy(&self.durable, image)?;
        self.lose(at, random, &File::options().read(true).write(true).open(image)?)
    }

    /// Writes to `image` the part of the cache that made it.
    fn lose(&self, at: usize, random: &mut Random, image: &File) -> Result<Loss> {
        // Every content that a sector may have: the one on the medium, or any that was written since.
        let mut versions: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
        for (_, request) in &self.log.requests[self.done..at] {
            let Request::Write { offset, length, position, durable } = request else { continue };
            let bytes = self.log.bytes(*position, *length)?;
            let mut from = 0;
            while from < bytes.len() {
                let place = offset + from as u64;
                let (sector, inside) = (place / SECTOR * SECTOR, (place % SECTOR) as usize);
                let until = bytes.len().min(from + SECTOR as usize - inside);
                let known = versions.entry(sector).or_default();
                let mut content = match known.last() {
                    Some(last) => last.clone(),
                    None => read_sector(image, sector)?,
                };
                content[inside..inside + until - from].copy_from_slice(&bytes[from..until]);
                if *durable {
                    image.write_all_at(&content, sector)?;
                    known.clear();
                }
                known.push(content);
                from = until;
            }
        }
        // Some disks lose all of their cache, some hardly anything.
        let percent = [0, 50, 90][random.below(3)];
        let mut loss = Loss { cached: versions.len(), kept: 0 };
        for (sector, contents) in versions {
            if random.below(100) < percent {
                image.write_all_at(&contents[random.below(contents.len())], sector)?;
                loss.kept += 1;
            }
        }
        Ok(loss)
    }
}

/// A generator whose numbers can be had again from its seed (splitmix64).
#[derive(Debug)]
pub struct Random(pub u64);

impl Random {
    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}

/// Whether the file system on `image` is whole after the repair that every boot does: its journal is replayed, and what
/// was being deleted is. As Debian's boot does (`fsck -a`), and nothing may be left to repair then.
pub fn check_file_system(image: &Path) -> Result<()> {
    let replayed = host("e2fsck").args(["-fp"]).arg(image).run()?;
    ensure!(replayed.status <= 1, "the file system did not survive: {replayed}");
    host("e2fsck").args(["-fn"]).arg(image).ok().context("the file system is not whole").map(drop)
}

fn read_sector(image: &File, sector: u64) -> io::Result<Vec<u8>> {
    let mut content = vec![0; SECTOR as usize];
    image.read_exact_at(&mut content, sector)?;
    Ok(content)
}

/// Copies an image, holes and all.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    host("cp").args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to).ok().map(drop)
}

fn lock(medium: &Mutex<Medium>) -> MutexGuard<'_, Medium> {
    medium.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The medium as one client sees it.
struct Shared(Arc<Mutex<Medium>>);

impl Disk for Shared {
    fn size(&self) -> u64 {
        lock(&self.0).image.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        lock(&self.0).image.read_exact_at(bytes, offset)
    }

    fn write(&mut self, offset: u64, bytes: &[u8], durable: bool) -> io::Result<()> {
        let mut medium = lock(&self.0);
        medium.image.write_all_at(bytes, offset)?;
        let Some(log) = &mut medium.log else { return Ok(()) };
        log.data.write_all_at(bytes, log.length)?;
        let request = Request::Write { offset, length: bytes.len(), position: log.length, durable };
        log.length += bytes.len() as u64;
        log.requests.push((Instant::now(), request));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(log) = &mut lock(&self.0).log {
            log.requests.push((Instant::now(), Request::Flush));
        }
        Ok(())
    }
}

/// A connection that is read with a buffer, and written without one.
struct Client {
    input: BufReader<UnixStream>,
    output: UnixStream,
}

impl Client {
    fn new(stream: UnixStream) -> io::Result<Self> {
        Ok(Self { input: BufReader::new(stream.try_clone()?), output: stream })
    }
}

impl io::Read for Client {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.input.read(bytes)
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was flushed is always there; what was not is lost, kept, or an earlier state of it.
    #[test]
    fn a_cut_loses_only_what_was_not_flushed() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("image"), vec![b'0'; 4 * SECTOR as usize])?;
        let disk = LossyDisk::serve(&path("image"), &path("socket"))?;
        disk.record(&path("base"))?;
        let mut client = Shared(Arc::clone(&disk.medium));
        client.write(0, &[b'1'; 100], false)?;
        client.flush()?;
        client.write(0, &[b'2'; 200], false)?;
        client.write(SECTOR, &[b'3'; 2 * SECTOR as usize], false)?;
        client.write(3 * SECTOR, &[b'4'; 10], true)?;
        let log = disk.recorded()?;
        let (mut lost, mut kept, mut torn) = (0, 0, 0);
        for seed in 0..60 {
            std::fs::copy(path("base"), path("medium"))?;
            Cuts::new(&log, path("medium")).cut(5, &mut Random(seed), &path("after"))?;
            let after = std::fs::read(path("after"))?;
            ensure!(after[3 * SECTOR as usize] == b'4', "a write that asked for it was lost");
            match &after[..SECTOR as usize] {
                bytes if bytes[..100] == [b'1'; 100] && bytes[100] == b'0' => lost += 1,
                bytes if bytes[..200] == [b'2'; 200] => kept += 1,
                bytes => anyhow::bail!("never written: {:?}", &bytes[..201]),
            }
            torn += usize::from(after[SECTOR as usize] != after[2 * SECTOR as usize]);
        }
        ensure!(lost > 5 && kept > 5 && torn > 5, "{lost} lost, {kept} kept, {torn} torn");
        Ok(())
    }
}
