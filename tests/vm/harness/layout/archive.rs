//! An archive in the form of the official one, `nix-VERSION-SYSTEM.tar` with `.reginfo`, `install` and `store/`, made
//! from Debian's Nix: its programs, the libraries they load and the loader move into one store path.

use crate::harness::cache::{self, Cached};
use crate::harness::exec::{Limited, host};
use crate::harness::image;
use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Files that upstream puts into Nix's own store path, with `@out@` for that path.
const PARTS: [(&str, &str); 5] = [
    ("lib/systemd/system/nix-daemon.service", include_str!("../../fixtures/official/nix-daemon.service")),
    ("lib/systemd/system/nix-daemon.socket", include_str!("../../fixtures/official/nix-daemon.socket")),
    ("lib/tmpfiles.d/nix-daemon.conf", include_str!("../../fixtures/official/tmpfiles.conf")),
    ("etc/profile.d/nix.sh", include_str!("../../fixtures/official/nix.sh")),
    ("etc/profile.d/nix-daemon.sh", include_str!("../../fixtures/official/nix-daemon.sh")),
];
const INSTALL: &str = include_str!("../../fixtures/official/install");

/// The archive in the cache.
#[derive(Debug)]
pub struct Archive(Cached);

impl Archive {
    /// The archive itself, not compressed.
    pub fn file(&self) -> PathBuf {
        self.0.join("nix.tar")
    }
}

/// The archive, made when the cache doesn't have it.
pub fn cached() -> Result<Archive> {
    image::need_host_programs(&[("patchelf", "patchelf"), ("tar", "tar")])?;
    let debian = image::with_debian_nix()?;
    let mut inputs = vec![include_str!("archive.rs"), INSTALL];
    inputs.extend(PARTS.iter().flat_map(|(name, text)| [*name, *text]));
    let cached = cache::tree("archive", &inputs, |dir| {
        let relocated = Relocation::of(&debian.join("tree"))?;
        let top = relocated.build(dir)?;
        host("tar")
            .arg("-C")
            .arg(dir)
            .args(["--owner=0", "--group=0", "-cf"])
            .arg(dir.join("nix.tar"))
            .arg(&top)
            .ok()?;
        cache::remove(&dir.join(top))
    })?;
    Ok(Archive(cached))
}

/// Debian's Nix on its way into a store path.
struct Relocation {
    debian: PathBuf,
    version: String,
    libraries: Vec<String>,
    loader: String,
}

impl Relocation {
    fn of(debian: &Path) -> Result<Relocation> {
        let inside = |program: &str| host("chroot").arg(debian).arg(program);
        let ldd = inside("ldd").args(["/usr/bin/nix", "/usr/libexec/nix-nswrapper"]).ok()?;
        let mut libraries: Vec<_> = ldd
            .lines()
            .filter_map(|line| line.split_once("=> ")?.1.split(' ').next())
            .filter(|path| path.starts_with('/'))
            .map(String::from)
            .collect();
        libraries.sort();
        libraries.dedup();
        let loader =
            ldd.lines().map(str::trim).find(|line| line.starts_with("/lib") && line.contains("/ld-"));
        let loader =
            loader.and_then(|line| line.split(' ').next()).context("ldd names no loader")?.to_owned();
        let mut it = Relocation { debian: debian.to_owned(), version: String::new(), libraries, loader };
        let said = it.nix("nix")?.arg("--version").ok()?;
        it.version = said.split_whitespace().last().context("nix --version says nothing")?.to_owned();
        Ok(it)
    }

    /// Builds the unpacked archive below `dir` and returns its top directory's name.
    fn build(&self, dir: &Path) -> Result<String> {
        let top = format!("nix-{}-{}-linux", self.version, std::env::consts::ARCH);
        let package = format!("{}-nix-{}", self.hash_part()?, self.version);
        let (store_path, root) = (format!("/nix/store/{package}"), dir.join(&top));
        let out = root.join("store").join(&package);
        for sub in ["bin", "lib", "libexec/nix"] {
            fs::create_dir_all(out.join(sub))?;
        }
        self.copy_programs(&out)?;
        self.copy_libraries(&out)?;
        self.patch(&out, &store_path)?;
        for (name, text) in PARTS {
            write(&out.join(name), &text.replace("@out@", &store_path), 0o444)?;
        }
        host("chmod").args(["-R", "ugo-w"]).arg(&out).ok()?;
        // Nix gives every file of the store the time stamp 1.
        host("find").arg(&out).args(["-exec", "touch", "-h", "-d", "@1", "{}", "+"]).ok()?;
        let (hash, size) = self.nar(&out)?;
        let reginfo = format!("{store_path}\n{hash}\n{size}\n\n1\n{store_path}\n");
        write(&root.join(".reginfo"), &reginfo, 0o644)?;
        write(&root.join("install"), &INSTALL.replace("@nix@", &store_path), 0o755)?;
        Ok(top)
    }

    fn copy_programs(&self, out: &Path) -> Result<()> {
        let usr = self.debian.join("usr");
        copy(&usr.join("bin/nix"), &out.join("bin/nix"))?;
        for entry in fs::read_dir(usr.join("bin"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with("nix-") {
                symlink("nix", out.join("bin").join(name))?;
            }
        }
        symlink("../../bin/nix", out.join("libexec/nix/build-remote"))?;
        copy(&usr.join("libexec/nix-nswrapper"), &out.join("libexec/nix-nswrapper"))
    }

    fn copy_libraries(&self, out: &Path) -> Result<()> {
        for library in self.libraries.iter().chain([&self.loader]) {
            let inside = host("chroot").arg(&self.debian).args(["realpath", library]).ok()?;
            let name = Path::new(library).file_name().context("a library without a name")?;
            copy(&self.debian.join(inside.trim_start_matches('/')), &out.join("lib").join(name))?;
        }
        Ok(())
    }

    /// DT_RPATH and not DT_RUNPATH, because it also counts for the libraries' own libraries.
    fn patch(&self, out: &Path, store_path: &str) -> Result<()> {
        let loader =
            Path::new(&self.loader).file_name().context("a loader without a name")?.to_string_lossy();
        for program in ["bin/nix", "libexec/nix-nswrapper"] {
            host("patchelf")
                .args(["--set-interpreter", &format!("{store_path}/lib/{loader}")])
                .args(["--force-rpath", "--set-rpath", &format!("{store_path}/lib")])
                .arg(out.join(program))
                .ok()?;
        }
        Ok(())
    }

    /// SHA-256 and size of the path's NAR, by Debian's own Nix run with its own loader.
    fn nar(&self, out: &Path) -> Result<(String, u64)> {
        let hash = self.nix("nix-hash")?.args(["--type", "sha256", "--base16"]).arg(out).ok()?;
        ensure!(hash.len() == 64, "nix-hash says {hash}");
        let tree = out.with_file_name("nar");
        let dump = format!("exec \"$@\" > {}", tree.display());
        let words = self.nix_argv("nix-store")?;
        host("sh").args(["-c", &dump, "sh"]).args(words).arg("--dump").arg(out).ok()?;
        let size = fs::metadata(&tree)?.len();
        fs::remove_file(&tree)?;
        Ok((format!("sha256:{hash}"), size))
    }

    fn nix(&self, name: &str) -> Result<Limited> {
        let words = self.nix_argv(name)?;
        Ok(host(&words[0]).args(&words[1..]))
    }

    /// Debian's Nix under this name, run by the host's kernel but with its own loader and libraries: it wants a
    /// `/proc`, which a bare chroot doesn't have.
    fn nix_argv(&self, name: &str) -> Result<Vec<String>> {
        let inside = host("chroot").arg(&self.debian).args(["realpath", &self.loader]).ok()?;
        let below = |path: &str| format!("{}/{}", self.debian.display(), path.trim_start_matches('/'));
        let mut dirs: Vec<_> = self.libraries.iter().filter_map(|path| Path::new(path).parent()).collect();
        dirs.sort();
        dirs.dedup();
        let dirs: Vec<_> = dirs.iter().map(|dir| below(&dir.to_string_lossy())).collect();
        let words = [below(&inside), "--library-path".into(), dirs.join(":"), "--argv0".into(), name.into()];
        Ok(words.into_iter().chain([below("/usr/bin/nix")]).collect())
    }

    /// 32 characters of Nix's base 32 that stand for what goes in.
    fn hash_part(&self) -> Result<String> {
        const ALPHABET: &[u8] = b"0123456789abcdfghijklmnpqrsvwxyz";
        let mut hash = Sha256::new();
        hash.update(fs::read(self.debian.join("usr/bin/nix"))?);
        for (name, text) in PARTS {
            hash.update(name);
            hash.update(text);
        }
        Ok(hash.finalize().iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}
