//! The version of a Nix, as `nix --version` prints it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Nix version: `2.34.8`, with anything after the third number kept but not compared (`2.35.0pre2026`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct NixVersion {
    numbers: [u32; 3],
    text: String,
}

impl NixVersion {
    /// The first release whose daemon can ask a separate root scanner (`use-roots-daemon`).
    pub const FIRST_WITH_ROOTS_DAEMON: [u32; 3] = [2, 34, 0];
    /// The first 2.34 release without CVE-2026-44028 (code execution through a crafted NAR).
    pub const FIRST_WITHOUT_CVE_2026_44028: [u32; 3] = [2, 34, 7];

    /// Parses `2.34.8`, `2.34` or `2.35.0pre20260101_abcdef`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut numbers = [0; 3];
        let mut rest = text;
        for (index, number) in numbers.iter_mut().enumerate() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if digits == 0 {
                return None;
            }
            *number = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            match rest.strip_prefix('.') {
                Some(after) if index < 2 => rest = after,
                _ if index == 0 => return None,
                _ => break,
            }
        }
        Some(Self { numbers, text: text.to_owned() })
    }

    /// Whether this version is `other` or newer, looking at major, minor and patch.
    pub fn at_least(&self, other: [u32; 3]) -> bool {
        self.numbers >= other
    }
}

impl fmt::Display for NixVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for NixVersion {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is not a Nix version such as 2.34.8"))
    }
}

impl From<NixVersion> for String {
    fn from(version: NixVersion) -> Self {
        version.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_by_number_not_by_text() {
        let rows = [
            ("2.34.8", [2, 34, 7], true),
            ("2.34.7", [2, 34, 7], true),
            ("2.34.6", [2, 34, 7], false),
            ("2.8.0", [2, 34, 0], false),
            ("2.34", [2, 34, 0], true),
            ("2.35.0pre20260101_abcdef", [2, 34, 0], true),
            ("2.100.1", [2, 34, 0], true),
        ];
        for (text, floor, expected) in rows {
            assert_eq!(NixVersion::parse(text).unwrap().at_least(floor), expected, "{text} >= {floor:?}");
        }
    }

    #[test]
    fn refuses_what_is_not_a_version() {
        for text in ["", "2", "nix", "2.", ".2.3", "2.x.1", "99999999999.1.1"] {
            assert_eq!(NixVersion::parse(text), None, "{text:?}");
        }
    }
}
