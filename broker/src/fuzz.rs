//! What must hold for any input, for everything of this crate that reads some. `fuzz/` feeds these with made-up inputs (`cfg(fuzzing)`), a
//! test feeds them with the corpus that is kept there.

use crate::document::Document;
use crate::policy::{self, MOST_OUTPUTS};
use crate::wire::{self, Answer};
use crate::{args::Task, processes};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

pub use helper_common::corpus::Target;

/// One for each kind of input, by the name of its target and corpus.
pub const TARGETS: [(&str, Target); 6] = [
    ("request", request),
    ("policy", policy),
    ("answer", answer),
    ("document", document),
    ("args", args),
    ("status", status),
];

/// What is understood is written in the same way; nothing is understood in two ways.
pub fn request(text: &[u8]) {
    if let Ok(request) = wire::decode(text) {
        assert_eq!(wire::encode(&request), text);
    }
    let mut sent = wire::MAGIC.to_vec();
    sent.extend(u32::try_from(text.len()).expect("fuzzers make short inputs").to_le_bytes());
    sent.extend(text);
    assert_eq!(wire::receive(sent.as_slice()).as_deref(), Ok(text));
}

/// Whatever is taken names nothing outside of the store, and starts nothing outside of an input.
pub fn policy(text: &[u8]) {
    let Ok(request) = wire::decode(text) else { return };
    let Ok(build) = policy::check(&request, Path::new("/nix/store"), Path::new("/w/build")) else { return };
    assert!((1..=MOST_OUTPUTS).contains(&build.outputs.len()));
    for name in build.outputs.iter().chain(&build.inputs) {
        let bytes = name.as_c_str().to_bytes();
        assert!(bytes.len() > 33 && bytes[32] == b'-' && !bytes.contains(&b'/'));
    }
    assert!(build.outputs.iter().all(|output| !build.inputs.contains(output)));
    assert_eq!(build.outputs.iter().collect::<BTreeSet<_>>().len(), build.outputs.len());
    let builder = build.builder.to_string_lossy().into_owned();
    let below = builder.strip_prefix("/nix/store/").and_then(|below| below.split('/').next());
    let input = below.is_some_and(|base| build.inputs.iter().any(|input| input.as_path() == Path::new(base)));
    assert!(builder == "/bin/sh" || input && !builder.split('/').any(|part| part == ".."), "{builder}");
    let names: Vec<_> =
        build.env.iter().map(|entry| entry.to_bytes().split(|byte| *byte == b'=').next()).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "each variable once");
    for (name, _) in &build.files {
        assert!(!name.to_bytes().contains(&b'/') && !matches!(name.to_bytes(), b"" | b"." | b".."));
    }
}

/// An answer that is understood is the same when it is written again.
pub fn answer(text: &[u8]) {
    if let Ok(answer) = wire::hear(text) {
        let mut again = Vec::new();
        wire::answer(&mut again, &answer).expect("a vector takes everything");
        // A reason that is no text is shown as one.
        if !matches!(answer, Answer::Refused(_)) {
            assert!(text.starts_with(&again));
        }
    }
}

/// Nix's description never becomes a request that the broker cannot read.
pub fn document(text: &[u8]) {
    if let Ok(document) = Document::parse(text) {
        let files = [(b"file".to_vec(), text.to_vec())];
        let request = document.request(&files);
        let bytes = wire::encode(&request);
        assert_eq!(wire::decode(&bytes).as_ref(), Ok(&request));
    }
}

/// Builds get no id of root, and not the daemon's. Words are separated by NUL.
pub fn args(text: &[u8]) {
    let words = text.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    let Ok(Task::Serve(serve)) = Task::parse(words) else { return };
    assert!(
        !serve.uids.contains(0) && !serve.uids.contains(serve.client.0) && !serve.uids.contains(u32::MAX)
    );
    assert!(serve.gid != 0 && serve.client.0 != 0 && serve.gid != serve.client.1);
    assert_eq!(serve.uids.iter().count(), serve.uids.count as usize);
    assert!(serve.work.is_absolute() && serve.socket.is_absolute() && serve.store.is_absolute());
}

/// A process is whose it says.
pub fn status(text: &[u8]) {
    if processes::is_of(text, 41000) {
        assert!(text.windows(5).any(|word| word == b"41000"));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_holds() {
        helper_common::corpus::check(env!("CARGO_MANIFEST_DIR"), &super::TARGETS);
    }
}
