//! What of a request is taken. Everything in it is the daemon's word, and the daemon may be somebody else's by now.
//!
//! What follows from a [`Build`] is only: which program runs under a build uid with which words, which entries of the store it can read, and which
//! entries may be handed over. No text of a request names a path outside of the store, and none reaches a process that has a privilege.

use crate::log::shown;
use crate::wire::Request;
use crate::{Failure, Result};
use helper_common::store_name;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The most outputs of one build; more than any package has, and each is a rule of the sandbox profile on macOS.
pub const MOST_OUTPUTS: usize = 32;
/// The one builder that may lie outside of the store.
const SHELL: &[u8] = b"/bin/sh";
/// Nix sets this for a fixed-output derivation (`initEnv` in its `derivation-builder.cc`), and its document has no other sign of it.
const FIXED: (&[u8], &[u8]) = (b"NIX_OUTPUT_CHECKED", b"1");

/// The base name of a store path: no slash, no NUL, at most 244 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreName(CString);

impl StoreName {
    /// Takes a base name.
    #[must_use]
    pub fn new(base: &[u8]) -> Option<Self> {
        store_name::is_valid(base).then(|| CString::new(base).ok().map(Self)).flatten()
    }

    /// For system calls.
    #[must_use]
    pub fn as_c_str(&self) -> &std::ffi::CStr {
        &self.0
    }

    /// For paths.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(std::ffi::OsStr::from_bytes(self.0.to_bytes()))
    }
}

/// A build that may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// An absolute path below an input, or `/bin/sh`.
    pub builder: CString,
    /// The builder's name and its arguments.
    pub argv: Vec<CString>,
    /// `NAME=VALUE`, each name once.
    pub env: Vec<CString>,
    /// What it may read.
    pub inputs: BTreeSet<StoreName>,
    /// What it may make; at least one, none an input.
    pub outputs: Vec<StoreName>,
    /// Files for its directory.
    pub files: Vec<(CString, Vec<u8>)>,
    /// Whether it may use the network.
    pub network: bool,
}

/// Takes a request, or says what is wrong with it. `build_dir` is where the build will find its directory; values that name the one of the
/// request are changed to it.
///
/// # Errors
/// For everything that this module does not know to be harmless.
pub fn check(request: &Request<'_>, store: &Path, build_dir: &Path) -> Result<Build> {
    if request.store != store.as_os_str().as_bytes() {
        return Err(Failure::new(format!("the store is {}, not {}", store.display(), shown(request.store))));
    }
    if request.build_dir.first() != Some(&b'/') || request.build_dir.len() < 2 {
        return Err(Failure::new("the build directory's name is no absolute path"));
    }
    let inputs: BTreeSet<_> = request
        .inputs
        .iter()
        .map(|path| in_store(path, store).ok_or_else(|| bad("input", path)))
        .collect::<Result<_>>()?;
    let outputs = outputs(request, store, &inputs)?;
    let moved = |value: &[u8]| moved(value, request.build_dir, build_dir.as_os_str().as_bytes());
    Ok(Build {
        builder: builder(request.builder, store, &inputs)?,
        argv: argv(request)?,
        env: environment(request, moved)?,
        inputs,
        outputs,
        files: files(request)?,
        network: request.env.contains(&FIXED),
    })
}

/// The base name, when the path is an entry of the store and nothing else.
fn in_store(path: &[u8], store: &Path) -> Option<StoreName> {
    StoreName::new(path.strip_prefix(store.as_os_str().as_bytes())?.strip_prefix(b"/")?)
}

fn bad(what: &str, text: &[u8]) -> Failure {
    Failure::new(format!("{what} '{}' is not one that the broker takes", shown(text)))
}

fn outputs(request: &Request<'_>, store: &Path, inputs: &BTreeSet<StoreName>) -> Result<Vec<StoreName>> {
    let mut outputs = Vec::new();
    for path in &request.outputs {
        let name = in_store(path, store).ok_or_else(|| bad("output", path))?;
        if inputs.contains(&name) || outputs.contains(&name) {
            return Err(Failure::new(format!("output '{}' is an input, or stands twice", shown(path))));
        }
        outputs.push(name);
    }
    match outputs.len() {
        1..=MOST_OUTPUTS => Ok(outputs),
        count => Err(Failure::new(format!("a build has 1 to {MOST_OUTPUTS} outputs, not {count}"))),
    }
}

fn builder(path: &[u8], store: &Path, inputs: &BTreeSet<StoreName>) -> Result<CString> {
    let inside = || {
        let below = path.strip_prefix(store.as_os_str().as_bytes())?.strip_prefix(b"/")?;
        let mut parts = below.split(|byte| *byte == b'/');
        let input = parts.next().and_then(StoreName::new).is_some_and(|name| inputs.contains(&name));
        (input && parts.all(|part| !matches!(part, b"" | b"." | b".."))).then_some(())
    };
    if path == SHELL || inside().is_some() {
        return text("builder", path);
    }
    Err(Failure::new(format!(
        "builder '{}' is no program of an input{}",
        shown(path),
        if path.starts_with(b"builtin:") {
            ": Nix runs those itself when their system is 'builtin'"
        } else {
            ""
        }
    )))
}

/// Nix calls a builder by its last component.
fn argv(request: &Request<'_>) -> Result<Vec<CString>> {
    let name = request.builder.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    std::iter::once(&name).chain(&request.args).map(|word| text("argument", word)).collect()
}

fn environment(request: &Request<'_>, moved: impl Fn(&[u8]) -> Vec<u8>) -> Result<Vec<CString>> {
    let mut names = BTreeSet::new();
    let mut variables = Vec::new();
    for (name, value) in &request.env {
        if name.is_empty() || name.contains(&b'=') || !names.insert(name) {
            return Err(bad("the name of a variable", name));
        }
        variables.push(text("variable", &[name, &b"="[..], &moved(value)].concat())?);
    }
    Ok(variables)
}

/// A value that is the build directory, or a path below it.
fn moved(value: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match value.strip_prefix(from) {
        Some(rest) if rest.is_empty() || rest[0] == b'/' => [to, rest].concat(),
        _ => value.to_vec(),
    }
}

fn files(request: &Request<'_>) -> Result<Vec<(CString, Vec<u8>)>> {
    let mut names = BTreeSet::new();
    let mut files = Vec::new();
    for (name, contents) in &request.files {
        let plain = !matches!(*name, b"" | b"." | b"..") && !name.contains(&b'/') && name.len() <= 255;
        if !plain || !names.insert(name) {
            return Err(bad("file", name));
        }
        files.push((text("file", name)?, contents.to_vec()));
    }
    Ok(files)
}

fn text(what: &str, text: &[u8]) -> Result<CString> {
    CString::new(text).map_err(|_| bad(what, text))
}

#[cfg(test)]
mod tests;
