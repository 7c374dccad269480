//! Names of systemd units.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A unit's name, such as `nix-daemon.socket`: never a path, never something a shell or systemctl could read as an
/// option.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct UnitName(String);

impl UnitName {
    /// Parses a unit name: the characters of systemd.unit(5) and a known suffix.
    pub fn parse(text: &str) -> Option<Self> {
        let (stem, suffix) = text.rsplit_once('.')?;
        let good = !stem.is_empty()
            && !text.starts_with('-')
            && text.len() <= 255
            && stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte))
            && matches!(suffix, "service" | "socket" | "timer" | "mount" | "target" | "path" | "slice");
        good.then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for UnitName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is not the name of a unit"))
    }
}

impl From<UnitName> for String {
    fn from(name: UnitName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_or_an_option_is_not_a_unit() {
        for text in ["nix-daemon.socket", "nix-daemon@1-2-3.service", "dev-disk-by\\x2did.mount"] {
            assert!(UnitName::parse(text).is_some(), "{text}");
        }
        for text in ["", ".service", "--now.service", "../a.service", "a b.service", "nix-daemon", "a.conf"] {
            assert_eq!(UnitName::parse(text), None, "{text}");
        }
    }
}
