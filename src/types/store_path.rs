//! Store paths.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The only store directory this tool knows. Nix binaries have it compiled in.
pub const STORE_DIR: &str = "/nix/store";

/// The alphabet of Nix's base-32 (`src/libutil/base-nix-32.cc`): no e, o, t, u.
const NIX32: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// A store path's base name, `HASH-NAME`. It never holds a slash, so joining it to the store directory
/// cannot lead out of the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct StorePath(String);

impl StorePath {
    /// Parses `HASH-NAME`: 32 characters of Nix's base-32, a dash, and 1 to 211 characters of `[0-9A-Za-z+-._?=]`
    /// (the rules of `src/libstore/path.cc`).
    pub fn from_base_name(text: &str) -> Option<Self> {
        let (hash, name) = text.split_at_checked(32)?;
        let name = name.strip_prefix('-')?;
        let good_hash = hash.bytes().all(|byte| NIX32.contains(&byte));
        let good_name = (1..=211).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte))
            && !matches!(name, "." | "..")
            && !name.starts_with(".-")
            && !name.starts_with("..-");
        (good_hash && good_name).then(|| Self(text.to_owned()))
    }

    /// Parses `/nix/store/HASH-NAME`, with or without something below it, which is dropped.
    pub fn containing(path: &Path) -> Option<Self> {
        let below = path.strip_prefix(STORE_DIR).ok()?;
        Self::from_base_name(below.components().next()?.as_os_str().to_str()?)
    }

    /// `HASH-NAME`.
    pub fn base_name(&self) -> &str {
        &self.0
    }

    /// The absolute path.
    pub fn to_path(&self) -> PathBuf {
        Path::new(STORE_DIR).join(&self.0)
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE_DIR}/{}", self.0)
    }
}

impl TryFrom<String> for StorePath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let base = text.strip_prefix(STORE_DIR).and_then(|rest| rest.strip_prefix('/')).unwrap_or(&text);
        Self::from_base_name(base).ok_or_else(|| format!("{text:?} is not a store path"))
    }
}

impl From<StorePath> for String {
    fn from(path: StorePath) -> Self {
        path.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789abcdfghijklmnpqrsvwxyz";

    #[test]
    fn takes_what_nix_takes() {
        for name in ["a", "hello-2.12", "x?=+._-", ".hidden"] {
            assert!(StorePath::from_base_name(&format!("{HASH}-{name}")).is_some(), "{name}");
        }
        let below = PathBuf::from(format!("/nix/store/{HASH}-hello/bin/hello"));
        assert_eq!(StorePath::containing(&below).unwrap().to_string(), format!("/nix/store/{HASH}-hello"));
    }

    #[test]
    fn refuses_what_could_lead_astray() {
        let long = "a".repeat(212);
        for name in ["", ".", "..", "../etc", "a/b", "a b", "a\nb", "ü", ".-a", "..-a", long.as_str()] {
            assert_eq!(StorePath::from_base_name(&format!("{HASH}-{name}")), None, "{name:?}");
        }
        assert_eq!(
            StorePath::from_base_name("e123456789abcdfghijklmnpqrsvwxyz-a"),
            None,
            "e is not in nix32"
        );
        assert_eq!(StorePath::containing(Path::new("/nix/store/.links")), None);
        assert_eq!(StorePath::containing(Path::new("/home/alice")), None);
    }
}
