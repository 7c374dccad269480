//! `nix.conf` and what it includes, by Nix's own rules (`src/libutil/configuration.cc`, `parseConfigFiles`).

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::{ConfFile, Facts};
use crate::platform::paths::NIX_CONF;

/// Nix itself follows a file that includes itself until it crashes.
const MAX_DEPTH: usize = 32;
/// Below that depth a file that includes itself twice is two to the thirty-second files.
const MOST_FILES: usize = 1_000;
/// Old names that Nix still takes.
const ALIASES: [(&str, &str); 4] = [
    ("build-use-sandbox", "sandbox"),
    ("build-use-chroot", "sandbox"),
    ("build-sandbox-paths", "sandbox-paths"),
    ("build-chroot-dirs", "sandbox-paths"),
];

/// Which builds may run without a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsandboxed {
    /// None: `sandbox = true`, Nix's default on Linux.
    Never,
    /// Those with `__noChroot`: `sandbox = relaxed`.
    Marked,
    /// All: `sandbox = false`.
    Always,
}

impl Facts {
    /// Which builds `nix.conf` lets run without a sandbox.
    pub fn unsandboxed_builds(&self) -> Unsandboxed {
        match self.effective_setting("sandbox").as_deref() {
            Some("relaxed") => Unsandboxed::Marked,
            Some("false") => Unsandboxed::Always,
            _ => Unsandboxed::Never,
        }
    }

    /// The value of a setting as the system's `nix.conf` gives it: a later one wins, `extra-NAME` is added with a space. `None`
    /// when no file sets it, so that Nix's own default counts.
    pub fn effective_setting(&self, name: &str) -> Option<String> {
        effective(&self.nix_conf, name)
    }
}

pub(crate) fn gather(reader: &Reader<'_>) -> Vec<ConfFile> {
    let mut files = Vec::new();
    let main = Include { path: NIX_CONF.into(), optional: true, position: 0 };
    visit(reader, &main, None, 0, &mut files);
    files
}

/// See [`Facts::effective_setting`].
pub(crate) fn effective(files: &[ConfFile], name: &str) -> Option<String> {
    let mut value: Option<String> = None;
    for (key, text) in in_order(files) {
        let canonical = |key: &str| ALIASES.iter().find(|(old, _)| *old == key).map(|(_, new)| *new);
        let is = |key: &str| canonical(key).unwrap_or(key) == name;
        if is(key) {
            value = Some(text.to_owned());
        } else if key.strip_prefix("extra-").is_some_and(is) {
            let before = value.take().filter(|before| !before.is_empty());
            value = Some(before.map_or_else(|| text.to_owned(), |before| format!("{before} {text}")));
        }
    }
    value
}

/// The netrc file, which has a name also when nobody sets one.
pub(crate) fn netrc(files: &[ConfFile]) -> String {
    effective(files, "netrc-file").unwrap_or_else(|| "/etc/nix/netrc".to_owned())
}

/// All settings in the order Nix applies them: an included file's stand where the include stands.
fn in_order(files: &[ConfFile]) -> Vec<(&str, &str)> {
    let mut order = Vec::new();
    let mut next = 0;
    while next < files.len() {
        emit(files, &mut next, &mut order);
    }
    order
}

/// Emits the file at `next` with those that it includes, which follow it in the list.
fn emit<'f>(files: &'f [ConfFile], next: &mut usize, order: &mut Vec<(&'f str, &'f str)>) {
    let file = &files[*next];
    *next += 1;
    let settings = file.settings.as_deref().unwrap_or_default();
    let mut done = 0;
    while files.get(*next).is_some_and(|below| below.included_by.as_ref() == Some(&file.path)) {
        let position = files[*next].position.clamp(done, settings.len());
        order.extend(settings[done..position].iter().map(|(key, value)| (key.as_str(), value.as_str())));
        done = position;
        emit(files, next, order);
    }
    order.extend(settings[done..].iter().map(|(key, value)| (key.as_str(), value.as_str())));
}

struct Include {
    path: PathBuf,
    optional: bool,
    position: usize,
}

fn visit(reader: &Reader<'_>, include: &Include, by: Option<&Path>, depth: usize, files: &mut Vec<ConfFile>) {
    let path = &include.path;
    let text = reader.text(path);
    let metadata = reader.machine.stat(path).ok();
    // The main file need not exist; one that is included must, or Nix refuses all of its work.
    if metadata.is_none() && by.is_some() && !include.optional && !reader.machine.exists(path) {
        let by = by.unwrap_or(path).display();
        reader.note(path.to_string_lossy(), format!("not found, but {by} includes it: Nix refuses to run"));
    }
    let (settings, includes) = text.map(|text| parse(reader, path, &text)).unzip();
    let (uid, gid) = metadata.as_ref().map_or((0, 0), |found| reader.machine.owner(path, found));
    files.push(ConfFile {
        path: path.clone(),
        included_by: by.map(Path::to_owned),
        optional: include.optional && by.is_some(),
        position: include.position,
        settings,
        uid,
        gid,
        mode: metadata.map_or(0, |found| found.mode() & 0o7777),
    });
    for below in includes.unwrap_or_default() {
        if depth == MAX_DEPTH {
            reader.note(path.to_string_lossy(), "includes are nested more than 32 deep, or in a circle");
            return;
        }
        if files.len() >= MOST_FILES {
            reader.note(
                NIX_CONF,
                format!(
                    "it includes more than {MOST_FILES} files, or one again and again: no more were read"
                ),
            );
            return;
        }
        visit(reader, &below, Some(path), depth + 1, files);
    }
}

fn parse(reader: &Reader<'_>, path: &Path, text: &str) -> (Vec<(String, String)>, Vec<Include>) {
    let (mut settings, mut includes) = (Vec::new(), Vec::new());
    for (number, line) in text.split('\n').enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        // Nix splits at these four (`src/libutil/strings.cc`, `tokenizeString`).
        let words: Vec<_> = line.split([' ', '\t', '\n', '\r']).filter(|word| !word.is_empty()).collect();
        match words[..] {
            [] => {}
            [directive @ ("include" | "!include"), file] => includes.push(Include {
                path: path.parent().unwrap_or(Path::new("/")).join(file),
                optional: directive == "!include",
                position: settings.len(),
            }),
            ["include" | "!include", ..] => complain(reader, path, number),
            [name, "=", ref value @ ..] => settings.push((name.to_owned(), value.join(" "))),
            _ => complain(reader, path, number),
        }
    }
    (settings, includes)
}

fn complain(reader: &Reader<'_>, path: &Path, number: usize) {
    let why = format!("line {} is neither a setting nor an include: Nix refuses the file", number + 1);
    reader.note(path.to_string_lossy(), why);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Machine;
    use std::fs;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Vec<ConfFile>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc/nix/sub")).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join("etc/nix").join(name), text).unwrap();
        }
        let machine = Machine::at(dir.path());
        let reader = Reader::new(&machine);
        let conf = gather(&reader);
        let unread = reader.into_unread().into_iter().map(|note| format!("{}: {}", note.what, note.why));
        (dir, conf, unread.collect())
    }

    #[test]
    fn the_tree_is_read_in_nixs_order() {
        let (_dir, conf, unread) = tree(&[
            (
                "nix.conf",
                "cores=1 # no\n\ncores = 1\ninclude sub/a.conf\ncores = 3 4\n!include missing.conf\nextra-cores = 5",
            ),
            (
                "sub/a.conf",
                "cores = 2\nsandbox = false\n!include b.conf\nextra-platforms =  i686-linux\tarmv7l-linux \r\n",
            ),
            ("sub/b.conf", "build-use-sandbox = relaxed"),
        ]);
        let names: Vec<_> = conf.iter().map(|file| file.path.to_str().unwrap()).collect();
        assert_eq!(
            names,
            ["/etc/nix/nix.conf", "/etc/nix/sub/a.conf", "/etc/nix/sub/b.conf", "/etc/nix/missing.conf"]
        );
        let value = |name: &str| effective(&conf, name);
        assert_eq!(value("cores").as_deref(), Some("3 4 5"));
        assert_eq!(value("sandbox").as_deref(), Some("relaxed"), "an old name counts");
        assert_eq!(value("platforms").as_deref(), Some("i686-linux armv7l-linux"));
        assert_eq!(value("nothing"), None);
        assert_eq!(conf[3].settings, None);
        assert!(conf[3].optional && !conf[1].optional);
        assert_eq!(
            unread,
            ["/etc/nix/nix.conf: line 1 is neither a setting nor an include: Nix refuses the file"]
        );
    }

    #[test]
    fn an_include_takes_effect_where_it_stands() {
        let (_dir, conf, _) = tree(&[("nix.conf", "a = 1\ninclude x\nb = 1"), ("x", "a = 2\nb = 2")]);
        assert_eq!(effective(&conf, "a").as_deref(), Some("2"));
        assert_eq!(effective(&conf, "b").as_deref(), Some("1"));
    }

    #[test]
    fn what_nix_would_refuse_is_told() {
        let (_dir, conf, unread) = tree(&[("nix.conf", "include gone.conf\n")]);
        assert_eq!(conf.len(), 2);
        assert_eq!(
            unread,
            ["/etc/nix/gone.conf: not found, but /etc/nix/nix.conf includes it: Nix refuses to run"]
        );
        let (_dir, conf, unread) = tree(&[("nix.conf", "include nix.conf\n")]);
        assert_eq!(conf.len(), MAX_DEPTH + 1);
        assert!(unread[0].contains("in a circle"), "{unread:?}");
    }

    #[test]
    fn includes_that_multiply_come_to_an_end() {
        let (_dir, conf, unread) = tree(&[("nix.conf", "include nix.conf\ninclude nix.conf\na = 1\n")]);
        assert_eq!(conf.len(), MOST_FILES);
        assert!(
            unread.iter().any(|note| note.starts_with("/etc/nix/nix.conf: it includes more than 1000 files")),
            "{unread:?}"
        );
        assert_eq!(effective(&conf, "a").as_deref(), Some("1"));
    }
}
