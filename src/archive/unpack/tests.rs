//! Archives made for the purpose: a good one, and every kind of bad one.

use std::fs;
use std::os::unix::fs::MetadataExt;

use liblzma::write::XzEncoder;
use tar::{Builder, Header};

use super::*;

const TOP: &str = "nix-2.34.8-x86_64-linux";

fn nix() -> StorePath {
    StorePath::from_base_name(&format!("{}-nix-2.34.8", "a".repeat(32))).unwrap()
}

/// An archive in the making. Names go in as they are: the tar crate's own checks are not what is tested.
struct Archive(Builder<Vec<u8>>);

impl Archive {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn entry(mut self, kind: EntryType, name: &str, mode: u32, body: &[u8], link: &str) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(body.len() as u64);
        let fields = header.as_old_mut();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, body).unwrap();
        self
    }

    fn file(self, name: &str, mode: u32, body: &[u8]) -> Self {
        self.entry(EntryType::Regular, name, mode, body, "")
    }

    fn directory(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, 0o755, b"", "")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, 0o777, b"", target)
    }

    /// What every archive has, but the store.
    fn head(self) -> Self {
        let registration = format!("{0}\nsha256:00\n1\n\n0\n", nix());
        let installer = format!("nix=\"{}\"\n", nix());
        self.file(&format!("{TOP}/.reginfo"), 0o644, registration.as_bytes()).file(
            &format!("{TOP}/install"),
            0o755,
            installer.as_bytes(),
        )
    }

    fn sound() -> Self {
        Self::new()
            .head()
            .directory(&store(""))
            .directory(&store("bin"))
            .file(&store("bin/nix"), 0o4755, b"program")
            .link(&store("bin/nix-store"), "nix")
            .file(&store("data"), 0o666, b"data")
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

fn store(rest: &str) -> String {
    format!("{TOP}/store/{}/{rest}", nix().base_name()).trim_end_matches('/').to_owned()
}

fn unpacked(bytes: &[u8], limits: Limits) -> (tempfile::TempDir, Result<Contents>) {
    let dir = tempfile::tempdir().unwrap();
    let result = unpack(bytes, dir.path(), limits);
    (dir, result)
}

fn refusal(archive: Archive) -> String {
    let (_dir, result) = unpacked(&archive.bytes(), LIMITS);
    format!("{:#}", result.unwrap_err())
}

#[test]
fn a_sound_archive_is_unpacked_as_nix_would_have_it() {
    let plain = Archive::sound().file(&format!("{TOP}/other"), 0o644, b"x").bytes();
    let mut xz = XzEncoder::new(Vec::new(), 1);
    xz.write_all(&plain).unwrap();
    for bytes in [plain, xz.finish().unwrap()] {
        let (dir, contents) = unpacked(&bytes, LIMITS);
        let contents = contents.unwrap();
        assert_eq!((&contents.nix, contents.certificates), (&nix(), None));
        let top = dir.path().join(nix().base_name());
        let seen = |path: &str| {
            let metadata = top.join(path).symlink_metadata().unwrap();
            (metadata.mode() & 0o7777, metadata.mtime())
        };
        assert_eq!(seen("bin/nix"), (0o555, 1), "and no set-uid bit");
        assert_eq!(seen("data"), (0o444, 1));
        assert_eq!(seen("bin"), (0o555, 1));
        assert_eq!(seen("bin/nix-store").1, 1);
        assert_eq!(fs::read(top.join("bin/nix-store")).unwrap(), b"program");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing else of the archive is unpacked");
    }
}

#[test]
fn a_hostile_archive_is_refused() {
    let outside = tempfile::tempdir().unwrap();
    let outside = outside.path().to_str().unwrap().to_owned();
    let rows: Vec<(Archive, &str)> = vec![
        (Archive::sound().file("/etc/cron.d/x", 0o644, b""), "absolute"),
        (Archive::sound().file("top/../../x", 0o644, b""), "upwards"),
        (Archive::sound().file(&format!("{TOP}/store/x"), 0o644, b""), "not in a store path"),
        (Archive::sound().link(&store("out"), &outside), "leads out of the store"),
        (Archive::sound().link(&store("out"), "../../x"), "leads out of the store"),
        // A link that stays in the store, and a file below it.
        (Archive::sound().link(&store("l"), "bin").file(&store("l/x"), 0o644, b""), "did not come before it"),
        (Archive::sound().file(&store("new/x"), 0o644, b""), "did not come before it"),
        (Archive::sound().file(&store("data"), 0o644, b""), "File exists"),
        (Archive::sound().link(&store("data"), "bin"), "File exists"),
        (Archive::sound().directory(&store("")), "twice"),
        (Archive::sound().entry(EntryType::Link, &store("hard"), 0o644, b"", &store("data")), "Link"),
        (Archive::sound().entry(EntryType::Char, &store("null"), 0o666, b"", ""), "Char"),
        (Archive::sound().entry(EntryType::Block, &store("disk"), 0o666, b"", ""), "Block"),
        (Archive::sound().entry(EntryType::Fifo, &store("pipe"), 0o666, b"", ""), "Fifo"),
        (Archive::new().head().directory(&store("")), "no bin/nix-store"),
        (Archive::new().directory(&store("")), "no `install`"),
    ];
    for (archive, part) in rows {
        let said = refusal(archive);
        assert!(said.contains(part), "{part:?} is not in {said:?}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}

#[test]
fn what_is_too_large_or_cut_short_is_refused() {
    let large = |limits: Limits| {
        let (_dir, result) = unpacked(&Archive::sound().bytes(), limits);
        format!("{:#}", result.unwrap_err())
    };
    assert!(large(Limits { bytes: 4000, ..LIMITS }).contains("more than is allowed"));
    assert!(large(Limits { entries: 3, ..LIMITS }).contains("more than 3 entries"));
    assert!(large(Limits { text_bytes: 10, ..LIMITS }).contains("too long"));
    let whole = Archive::sound().bytes();
    // The last file's content begins 1,024 bytes (its own block, and two of zeros at the end) before that.
    for length in [0, 100, 600, whole.len() - 1536 - 1, whole.len() - 1536] {
        let (_dir, result) = unpacked(&whole[..length], LIMITS);
        assert!(result.is_err(), "{length} of {} bytes were taken", whole.len());
    }
    let mut xz = XzEncoder::new(Vec::new(), 1);
    xz.write_all(&whole).unwrap();
    let xz = xz.finish().unwrap();
    let (_dir, result) = unpacked(&xz[..xz.len() - 20], LIMITS);
    assert!(result.is_err(), "a truncated xz file was taken");
    let (_dir, result) = unpacked(b"<html>not found</html>", LIMITS);
    assert!(result.is_err());
}
