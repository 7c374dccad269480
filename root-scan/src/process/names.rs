//! Lines of `/proc` that say where something lies: tables of mounts, and of mapped files.

use std::path::PathBuf;

use crate::look::unescaped;

/// Types of file systems that wait for somebody else's answer, as tables of mounts name them; with a subtype (`fuse.sshfs`), too.
const SERVED: [&[u8]; 12] = [
    b"nfs", b"nfs4", b"cifs", b"smb3", b"9p", b"afs", b"ceph", b"fuse", b"fuseblk", b"autofs", b"coda",
    b"lustre",
];

/// What a table of mounts tells of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Major and minor number of the device. On btrfs `stat` shows another one for each subvolume; `maps` shows this one.
    pub device: (u32, u32),
    /// An overlay: until Linux 6.8, `maps` shows device and inode of the file in a layer instead of its own.
    pub overlay: bool,
    /// The mount point, where a server (or a user's process) has to answer.
    pub server: Option<PathBuf>,
}

impl Mount {
    /// One of which no more is known.
    pub fn of(device: (u32, u32)) -> Self {
        Self { device, overlay: false, server: None }
    }
}

/// The number of a mount and what is told of it, from a line of `mountinfo` (man 5 proc_pid_mountinfo).
pub fn mount(line: &[u8]) -> Option<(u64, Mount)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?, 10)?;
    let device = device(fields.nth(1)?, 10)?;
    let point = fields.nth(1)?;
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    let served = SERVED.contains(&kind.split(|byte| *byte == b'.').next()?);
    Some((id, Mount { device, overlay: kind == b"overlay", server: served.then(|| unescaped(point)) }))
}

/// A mapped file.
#[derive(Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Of its file system, as [`Mount::device`].
    pub device: (u32, u32),
    /// On that.
    pub inode: u64,
    /// What the kernel calls it.
    pub name: PathBuf,
}

/// From a line of `maps` (man 5 proc_pid_maps), in which a newline of a name is `\012`; nothing for memory without a file.
pub fn mapped(line: &[u8]) -> Option<Mapped> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let device = device(fields.nth(3)?, 16)?;
    let inode = number(fields.next()?, 10).filter(|inode| *inode != 0)?;
    let name = fields.next()?.trim_ascii_start();
    name.starts_with(b"/").then(|| Mapped { device, inode, name: unescaped(name) })
}

fn device(text: &[u8], radix: u32) -> Option<(u32, u32)> {
    let at = text.iter().position(|byte| *byte == b':')?;
    let part = |text| u32::try_from(number(text, radix)?).ok();
    Some((part(&text[..at])?, part(&text[at + 1..])?))
}

fn number(text: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(str::from_utf8(text).ok()?, radix).ok()
}

/// For `crate::fuzz`: what is read names something, whatever the line.
#[cfg(any(test, fuzzing))]
pub fn check(text: &[u8]) {
    for line in text.split(|byte| *byte == b'\n') {
        if let Some((id, _)) = mount(line) {
            assert!(line.split(|byte| *byte == b' ').next().and_then(|text| number(text, 10)) == Some(id));
        }
        if let Some(mapped) = mapped(line) {
            assert!(mapped.inode != 0 && mapped.name.is_absolute());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn mounts() {
        let line = b"30 22 0:31 /x /home/a\\040b rw shared:1 master:2 - overlay none rw,lowerdir=/a - ext4";
        let overlay = Mount { device: (0, 31), overlay: true, server: None };
        assert_eq!(mount(line), Some((30, overlay)));
        let line = b"22 1 259:2 / / rw,relatime - ext4 /dev/overlay rw";
        assert_eq!(mount(line), Some((22, Mount::of((259, 2)))));
        for kind in ["nfs4", "fuse.sshfs", "fuse"] {
            let line = format!("30 22 0:31 / /home/a\\040b rw - {kind} x rw");
            let (_, found) = mount(line.as_bytes()).unwrap();
            assert_eq!(found.server.as_deref(), Some(Path::new("/home/a b")), "{kind}");
        }
        for bad in
            [&b""[..], b"22", b"x 1 8:1 / / rw - ext4 a rw", b"22 1 8 / / rw - ext4 a rw", b"22 1 8:1 / / rw"]
        {
            assert_eq!(mount(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn maps() {
        let line = b"7f4b4c000000-7f4b4c021000 r-xp 00002000 fe:0a 1835018                    /usr/\\012/a b.so (deleted)";
        let name = "/usr/\n/a b.so (deleted)".into();
        assert_eq!(mapped(line), Some(Mapped { device: (0xfe, 0xa), inode: 1_835_018, name }));
        for none in [
            &b"7f4b4c021000-7f4b50000000 ---p 00000000 00:00 0 "[..],
            b"7ffd5e9b2000-7ffd5e9d3000 rw-p 00000000 00:00 0                          [stack]",
            b"7ffd5e9b2000-7ffd5e9d3000 rw-p 00000000 00:01 7                          anon_inode:x",
            b"7f 00 00",
            b"",
        ] {
            assert_eq!(mapped(none), None, "{}", String::from_utf8_lossy(none));
        }
    }
}
