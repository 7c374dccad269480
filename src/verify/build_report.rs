//! What the builder wrote (`builder/main.rs`), read as what it is: a file that somebody else made.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use super::CheckError;
use super::id_map::IdMap;
use crate::system::text::printable;

/// The most that a report can hold.
const LARGEST: u64 = 16 << 10;

/// A build's view of itself.
#[derive(Debug)]
pub(super) struct BuildReport {
    lines: Vec<(String, String)>,
    /// Owner of the file.
    pub(super) owner: u32,
}

impl BuildReport {
    /// Reads `path`, which must be a regular file; nothing is followed and nothing can block.
    pub(super) fn read(path: &Path) -> Result<Self, CheckError> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
        let file = file.map_err(CheckError::io("cannot open the build's output", path))?;
        let metadata = file.metadata().map_err(CheckError::io("cannot look at", path))?;
        if !metadata.is_file() || metadata.len() > LARGEST {
            return Err(CheckError::Other(format!("{} is not a small regular file", path.display())));
        }
        let mut bytes = Vec::new();
        file.take(LARGEST).read_to_end(&mut bytes).map_err(CheckError::io("cannot read", path))?;
        Ok(Self { lines: parse(&String::from_utf8_lossy(&bytes)), owner: metadata.uid() })
    }

    /// The real uid that the build saw for itself.
    pub(super) fn uid(&self) -> Option<u32> {
        self.first_number("Uid")
    }

    /// The real gid.
    pub(super) fn gid(&self) -> Option<u32> {
        self.first_number("Gid")
    }

    /// `uid_map` or `gid_map`, with the ids of the daemon's namespace on the outside.
    pub(super) fn id_map(&self, name: &str) -> Option<IdMap> {
        self.get(name)?.parse().ok()
    }

    /// A namespace, as the kernel names it; `None` when the build could not tell.
    pub(super) fn namespace(&self, kind: &str) -> Option<&str> {
        self.get(&format!("ns.{kind}")).filter(|name| !name.is_empty())
    }

    /// Things of the host that it saw.
    pub(super) fn sees(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter(|(key, _)| key == "sees").map(|(_, path)| path.as_str())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.lines.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn first_number(&self, key: &str) -> Option<u32> {
        self.get(key)?.split(' ').next()?.parse().ok()
    }
}

fn parse(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (printable(key), printable(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::process::Command;

    use super::super::build_uid::BUILDER;
    use super::*;

    #[test]
    fn the_builder_needs_nothing_and_tells_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (program, out) = (dir.path().join("builder"), dir.path().join("out"));
        fs::write(&program, BUILDER).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o500)).unwrap();
        assert!(Command::new(&program).env_clear().env("out", &out).status().unwrap().success());
        let report = BuildReport::read(&out).unwrap();
        let uid = nix::unistd::getuid().as_raw();
        assert_eq!((report.uid(), report.owner), (Some(uid), uid));
        assert_eq!(
            report.namespace("mnt"),
            Some(super::super::process::own_namespace("mnt").unwrap().as_str())
        );
        assert!(report.id_map("uid_map").unwrap().outside(uid).is_some());
        assert!(report.sees().any(|path| path == "/home"), "it is in no sandbox here");
    }

    #[test]
    fn the_builder_names_no_interpreter_that_a_sandbox_would_lack() {
        // ELF, 64 bits, little-endian: the offset, size and number of the program headers (elf(5)).
        assert_eq!(&BUILDER[..6], b"\x7fELF\x02\x01");
        let half = |at: usize| usize::from(u16::from_le_bytes(BUILDER[at..at + 2].try_into().unwrap()));
        let first = usize::try_from(u64::from_le_bytes(BUILDER[32..40].try_into().unwrap())).unwrap();
        let kinds = (0..half(56)).map(|index| BUILDER[first + index * half(54)]).collect::<Vec<_>>();
        assert!(kinds.contains(&1) && !kinds.contains(&3), "PT_LOAD but no PT_INTERP: {kinds:?}");
    }

    #[test]
    fn an_output_that_is_no_small_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink("/etc/passwd", at("link")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        fs::create_dir(at("dir")).unwrap();
        fs::File::create(at("huge")).unwrap().set_len(1 << 40).unwrap();
        for name in ["link", "fifo", "dir", "huge", "missing"] {
            assert!(BuildReport::read(&at(name)).is_err(), "{name}");
        }
        fs::write(at("odd"), "Uid=\x1b[31mx\nsees=a\x07b\n\n=\nUid=7\n").unwrap();
        let report = BuildReport::read(&at("odd")).unwrap();
        assert_eq!((report.uid(), report.sees().collect::<Vec<_>>()), (None, vec!["a?b"]));
    }
}
