//! The files of root's that ssh reads by `Include`, for the daemon's connections to remote builders.
//!
//! ssh takes an included file, and a user's own configuration, only from root or from the user who runs it
//! (`read_config_file_depth` in its `readconf.c`). In the namespace root's files belong to nobody that is mapped, so ssh would stop with
//! "Bad owner or permissions", on every machine whose distribution puts a file into `/etc/ssh/ssh_config.d`. The daemon is
//! shown copies that uid 0 of the namespace owns. What ssh would refuse outside, it refuses inside.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The system's configuration; ssh does not ask who owns this one.
const SYSTEM: &str = "/etc/ssh/ssh_config";
/// As deep as ssh follows (`READCONF_MAX_DEPTH`).
const MAX_DEPTH: usize = 16;
/// More than this is no configuration that a person wrote; ssh complains about the rest itself.
const MAX_FILES: usize = 128;
const MAX_BYTES: u64 = 1 << 20;

/// A file that the daemon is shown a copy of.
#[derive(Debug, PartialEq, Eq)]
pub struct Copy {
    /// Where it lies, links followed.
    pub path: PathBuf,
    /// Its contents.
    pub contents: Vec<u8>,
}

/// The files, as the host has them: to be called outside of the namespace, where owners can be told. What cannot be read is left
/// as it is; ssh says so when somebody needs it.
#[must_use]
pub fn files_of_root(home: &Path) -> Vec<Copy> {
    gather(Path::new(SYSTEM), home, 0)
}

fn gather(system: &Path, home: &Path, root: u32) -> Vec<Copy> {
    let mut found = Found { copies: Vec::new(), seen: Vec::new(), home, root };
    let own = home.join(".ssh");
    found.visit(system, system.parent().unwrap_or(Path::new("/")), 0);
    found.visit(&own.join("config"), &own, 0);
    // Their owner is not asked for where they stand at the top.
    found.copies.retain(|copy| copy.path != system);
    found.copies
}

struct Found<'a> {
    copies: Vec<Copy>,
    seen: Vec<PathBuf>,
    home: &'a Path,
    root: u32,
}

impl Found<'_> {
    /// `base`: where names that are not absolute begin.
    fn visit(&mut self, path: &Path, base: &Path, depth: usize) {
        let Ok(path) = path.canonicalize() else { return };
        if depth > MAX_DEPTH || self.seen.len() >= MAX_FILES || self.seen.contains(&path) {
            return;
        }
        self.seen.push(path.clone());
        let Some((contents, of_root)) = read(&path, self.root) else { return };
        for pattern in includes(&contents) {
            let pattern = match pattern.strip_prefix("~/") {
                Some(rest) => self.home.join(rest),
                None => base.join(&pattern),
            };
            for file in matching(&pattern) {
                self.visit(&file, base, depth + 1);
            }
        }
        if of_root {
            self.copies.push(Copy { path, contents });
        }
    }
}

/// What a file holds, and whether it is `root`'s and nobody else may write to it.
fn read(path: &Path, root: u32) -> Option<(Vec<u8>, bool)> {
    let file = File::open(path).ok()?;
    let metadata = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut contents = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut contents).ok()?;
    let whole = contents.len() as u64 <= MAX_BYTES;
    whole.then_some((contents, metadata.uid() == root && metadata.mode() & 0o022 == 0))
}

/// The arguments of every `Include` in a configuration: also of those within `Host` and `Match`, which may or may not apply.
fn includes(contents: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(contents);
    let mut patterns = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        let end = line.find([' ', '\t', '=', '"']).unwrap_or(line.len());
        if line[..end].eq_ignore_ascii_case("include") {
            let rest = line[end..].trim_start();
            patterns.extend(words(rest.strip_prefix('=').unwrap_or(rest)));
        }
    }
    patterns
}

/// Words as ssh splits them: at blanks, with quotes around what holds blanks, up to a comment.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once([' ', '\t']).unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

/// What a pattern with wildcards means, by glob(3), which ssh uses too.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let Ok(pattern) = CString::new(pattern.as_os_str().as_bytes()) else { return Vec::new() };
    // SAFETY: `glob` fills the structure in, which is all zero before, as its callers have it; the pattern is a C string. On success
    // `gl_pathv` has `gl_pathc` C strings, which live until `globfree`, and are copied before. `globfree` is right after a failure too.
    #[allow(unsafe_code)]
    unsafe {
        let mut found: libc::glob_t = std::mem::zeroed();
        let mut paths = Vec::new();
        if libc::glob(pattern.as_ptr(), 0, None, &raw mut found) == 0 {
            for index in 0..found.gl_pathc {
                let path = std::ffi::CStr::from_ptr(*found.gl_pathv.add(index));
                paths.push(PathBuf::from(OsStr::from_bytes(path.to_bytes())));
            }
        }
        libc::globfree(&raw mut found);
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn include_lines() {
        let text = b"Host *\n  include /a \"/b c\" # no\nINCLUDE=x/*.conf\nIncludes /no\n# Include /no\nInclude\nUser nix\n";
        assert_eq!(includes(text), ["/a", "/b c", "x/*.conf"]);
    }

    #[test]
    fn what_root_owns_is_found_wherever_it_is_included_from() {
        let dir = std::env::temp_dir().join(format!("nix-daemon-gate-ssh-{}", std::process::id()));
        let file = |name: &str, text: &str, mode: u32| {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path.canonicalize().unwrap()
        };
        let system = file("ssh/ssh_config", "Include d/*.conf\nInclude ssh_config\n", 0o644);
        let deep = file("elsewhere", "Include ~/more\nInclude d/1.conf", 0o644);
        let first = file("ssh/d/1.conf", &format!("Include {}", deep.display()), 0o644);
        let linked = file("linked", "", 0o600);
        symlink(&linked, dir.join("ssh/d/2.conf")).unwrap();
        file("ssh/d/3.conf", "anybody can write this", 0o646);
        file("ssh/d/4.txt", "not matched", 0o644);
        let more = file("home/more", "", 0o644);
        let own = file("home/.ssh/config", "Include local /nowhere", 0o644);
        let local = file("home/.ssh/local", "", 0o644);

        let me = nix::unistd::getuid().as_raw();
        let of = |root| gather(&system, &dir.join("home"), root);
        let found = of(me);
        let mut paths: Vec<_> = found.iter().map(|copy| copy.path.clone()).collect();
        paths.sort();
        let mut expected = vec![deep, first, linked, more, own, local];
        expected.sort();
        assert_eq!(paths, expected);
        assert!(of(me + 1).is_empty(), "what belongs to neither is left for ssh to refuse");
        fs::remove_dir_all(dir).unwrap();
    }
}
