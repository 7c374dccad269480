//! Lines of `/proc` that say where something lies: tables of mounts, and of mapped files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What a table of mounts tells of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mounted {
    /// Major and minor number of the device. On btrfs `stat` shows another one for each subvolume; `maps` shows this one.
    pub device: (u32, u32),
    /// An overlay: until Linux 6.8, `maps` shows device and inode of the file in a layer instead of its own.
    pub overlay: bool,
}

/// The number of a mount and what is told of it, from a line of `mountinfo` (man 5 proc_pid_mountinfo).
pub fn mounted(line: &[u8]) -> Option<(u64, Mounted)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?, 10)?;
    let device = device(fields.nth(1)?, 10)?;
    let mut behind = fields.skip_while(|field| *field != b"-").skip(1);
    Some((id, Mounted { device, overlay: behind.next()? == b"overlay" }))
}

/// A mapped file.
#[derive(Debug, PartialEq, Eq)]
pub struct Mapped<'a> {
    /// Of its file system, as [`Mounted::device`].
    pub device: (u32, u32),
    /// On that.
    pub inode: u64,
    /// What the kernel calls it.
    pub name: &'a Path,
}

/// From a line of `maps` (man 5 proc_pid_maps); nothing for memory without a file.
pub fn mapped(line: &[u8]) -> Option<Mapped<'_>> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let device = device(fields.nth(3)?, 16)?;
    let inode = number(fields.next()?, 10).filter(|inode| *inode != 0)?;
    let name = fields.next()?.trim_ascii_start();
    name.starts_with(b"/").then(|| Mapped { device, inode, name: Path::new(OsStr::from_bytes(name)) })
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
        if let Some((id, _)) = mounted(line) {
            assert!(line.split(|byte| *byte == b' ').next().and_then(|text| number(text, 10)) == Some(id));
        }
        if let Some(mapped) = mapped(line) {
            assert!(
                mapped.inode != 0
                    && mapped.name.is_absolute()
                    && line.ends_with(mapped.name.as_os_str().as_bytes())
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts() {
        let line = b"30 22 0:31 /x /home/a\\040b rw shared:1 master:2 - overlay none rw,lowerdir=/a - ext4";
        assert_eq!(mounted(line), Some((30, Mounted { device: (0, 31), overlay: true })));
        let line = b"22 1 259:2 / / rw,relatime - ext4 /dev/overlay rw";
        assert_eq!(mounted(line), Some((22, Mounted { device: (259, 2), overlay: false })));
        for bad in
            [&b""[..], b"22", b"x 1 8:1 / / rw - ext4 a rw", b"22 1 8 / / rw - ext4 a rw", b"22 1 8:1 / / rw"]
        {
            assert_eq!(mounted(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn maps() {
        let line = b"7f4b4c000000-7f4b4c021000 r-xp 00002000 fe:0a 1835018                    /usr/lib/a b.so (deleted)";
        let name = Path::new("/usr/lib/a b.so (deleted)");
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
