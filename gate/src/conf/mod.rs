//! The two settings of `nix.conf` that decide who may connect: `trusted-users` and `allowed-users`.

pub mod parse;
pub mod tree;

use crate::{Failure, Result};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The lists of users, as words: names, `@group`s and `*`.
#[derive(Debug, PartialEq, Eq)]
pub struct Access {
    /// `trusted-users`.
    pub trusted: Vec<Vec<u8>>,
    /// `allowed-users`.
    pub allowed: Vec<Vec<u8>>,
}

impl Default for Access {
    /// Nix's defaults (`AuthorizationSettings` in its `daemon.cc`).
    fn default() -> Self {
        Self { trusted: vec![b"root".to_vec()], allowed: vec![b"*".to_vec()] }
    }
}

impl Access {
    /// Applies one setting; others are the daemon's business. A later one replaces an earlier one, and `extra-` appends.
    fn apply(&mut self, setting: parse::Setting) {
        let (name, append) = match setting.name.strip_prefix(b"extra-") {
            Some(name) => (name, true),
            None => (setting.name.as_slice(), false),
        };
        let list = match name {
            b"trusted-users" => &mut self.trusted,
            b"allowed-users" => &mut self.allowed,
            _ => return,
        };
        if !append {
            list.clear();
        }
        list.extend(setting.words);
    }
}

/// Reads the settings from `files` and then from `text`, the value of the variable `NIX_CONFIG`, in the order in which Nix does
/// (`loadConfFile` in its `globals.cc`). A file that is not there says nothing.
///
/// # Errors
/// For a file that cannot be read and for one that Nix would not accept. Where Nix passes over an unreadable file in
/// silence, the daemon ends up with other rules than the administrator wrote; here it is an error.
pub fn load(files: &[PathBuf], text: Option<&OsStr>) -> Result<Access> {
    let mut access = Access::default();
    for file in files {
        for setting in tree::read(file)? {
            access.apply(setting);
        }
    }
    if let Some(text) = text {
        for setting in tree::expand(text.as_bytes(), Path::new("NIX_CONFIG"))? {
            access.apply(setting);
        }
    }
    Ok(access)
}

/// A [`Failure`] about a configuration file.
fn failure(file: &Path, what: impl std::fmt::Display) -> Failure {
    Failure::new(format!("{}: {what}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(text: &str) -> (String, String) {
        let access = load(&[], Some(OsStr::new(text))).unwrap();
        let join = |list: Vec<Vec<u8>>| String::from_utf8(list.join(&b' ')).unwrap();
        (join(access.trusted), join(access.allowed))
    }

    #[test]
    fn later_wins_and_extra_appends() {
        for (text, trusted, allowed) in [
            ("", "root", "*"),
            ("trusted-users =", "", "*"),
            ("trusted-users = a b", "a b", "*"),
            ("trusted-users = a\ntrusted-users = b", "b", "*"),
            ("extra-trusted-users = a\nextra-trusted-users = b", "root a b", "*"),
            ("extra-trusted-users = a\ntrusted-users = b", "b", "*"),
            ("trusted-users = b\nextra-trusted-users = a", "b a", "*"),
            ("allowed-users = @x\nextra-allowed-users = y", "root", "@x y"),
            ("allowed-users =\nextra-allowed-users =", "root", ""),
            ("extra-extra-trusted-users = a\nTrusted-Users = b\ntrusted-user = c", "root", "*"),
            ("sandbox = true\nstore = daemon", "root", "*"),
        ] {
            assert_eq!(lists(text), (trusted.to_owned(), allowed.to_owned()), "{text:?}");
        }
    }
}
