//! What must hold for any input, for each parser of this crate. `fuzz/` feeds these with made-up inputs (`cfg(fuzzing)`), a test
//! feeds them with the corpus that is kept there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use crate::doubt::printable;
use crate::store_path::{StorePath, containing, find_all};
use crate::{gcroots, look, memory, process};

pub use helper_common::corpus::Target;

/// One for each parser, by the name of its target and corpus.
pub const TARGETS: [(&str, Target); 10] = [
    ("store_path", store_path),
    ("text", text),
    ("memory", memory),
    ("outcome", outcome),
    ("mountinfo", mountinfo),
    ("link", link),
    ("status", status),
    ("printable", print),
    ("records", records),
    ("names", names),
];

/// Whatever is found is a store path and stands there; whatever stands there is found.
pub fn store_path(text: &[u8]) {
    let mut found = Vec::new();
    for (base, end) in find_all(text) {
        let path = StorePath::from_base_name(base).expect("what is found is valid");
        assert_eq!(path.base_name(), &text[end - base.len()..end]);
        assert!(text[..end - base.len()].ends_with(b"/"));
        found.push(base);
    }
    if let Some(base) = containing(text) {
        assert_eq!(found.first(), Some(&base), "both ways to look see it");
    }
    // The slow way: at every place, the longest run of bytes of a name.
    for at in (0..text.len()).filter(|at| text[*at] == b'/') {
        let rest = &text[at + 1..];
        let byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-._?=".contains(byte);
        let base = &rest[..rest.iter().take_while(|b| byte(b)).count()];
        if StorePath::from_base_name(base).is_some() {
            assert!(found.contains(&base), "one was overlooked");
        }
    }
}

/// A file that is read in pieces holds what it holds when read at once. The first byte is the length of the pieces.
pub fn text(input: &[u8]) {
    let Some((size, text)) = input.split_first() else { return };
    let mut whole: Vec<_> = find_all(text).map(|(base, _)| base.to_vec()).collect();
    whole.sort();
    whole.dedup();
    assert_eq!(process::found_in_pieces(text, usize::from(*size).max(1)), whole);
}

/// What is taken for undamaged is written the same way again.
pub fn memory(text: &[u8]) {
    memory::check(text);
    // The checksum would keep everything else from the parser.
    memory::check(&memory::sealed(text));
}

/// What the child says is understood in one way, or not at all.
pub fn outcome(text: &[u8]) {
    if let Some(outcome) = look::decode(text) {
        assert_eq!(look::decode(&look::encode(&outcome)), Some(outcome));
    }
}

/// A mount point lies at or above the path. The first line is the path.
pub fn mountinfo(text: &[u8]) {
    let at = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let (path, table) = text.split_at(at);
    let path = Path::new("/").join(OsStr::from_bytes(path));
    assert!(path.starts_with(look::mount_point(table, &path)));
    look::check(table);
}

/// A cleaned path is absolute and plain. The first line is the parent, the rest the text of the link.
pub fn link(text: &[u8]) {
    let at = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let (parent, target) = text.split_at(at);
    let path = gcroots::clean(Path::new(OsStr::from_bytes(parent)), OsStr::from_bytes(target));
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    assert!(path.is_absolute() && path.components().all(plain));
    assert_eq!(gcroots::clean(Path::new("/"), path.as_os_str()), path);
}

/// Capabilities that are not all named are missing.
pub fn status(text: &[u8]) {
    if process::holds_all(text) {
        assert!(text.windows(7).any(|word| word == b"CapEff:"));
    }
}

/// What libproc could say is read to its end, and forward.
pub fn records(text: &[u8]) {
    process::check_records(text);
}

/// What tables of mounts and of mapped files name is there, and named in one way.
pub fn names(text: &[u8]) {
    process::check_names(text);
}

/// One harmless line, whatever the name.
pub fn print(text: &[u8]) {
    let line = printable(Path::new(OsStr::from_bytes(text)));
    assert!(!line.chars().any(char::is_control));
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_holds() {
        helper_common::corpus::check(env!("CARGO_MANIFEST_DIR"), &super::TARGETS);
    }
}
