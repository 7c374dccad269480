//! SHA-256 digests.

use std::fmt;
use std::io::{self, Read};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A SHA-256, kept as 64 small hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Sha256Digest(String);

impl Sha256Digest {
    /// Parses 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let good = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        good.then(|| Self(text.to_ascii_lowercase()))
    }

    /// The digest of all that `reader` gives; `seen` is told how many bytes that were, so far.
    ///
    /// # Errors
    /// When reading fails, and what `seen` returns.
    pub fn of(mut reader: impl Read, mut seen: impl FnMut(u64) -> io::Result<()>) -> io::Result<Self> {
        let mut digest = Sha256::new();
        let mut buffer = vec![0; 1 << 18];
        let mut total = 0;
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok(Self::finish(digest)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            digest.update(&buffer[..count]);
            total += count as u64;
            seen(total)?;
        }
    }

    /// The digest of these bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    fn finish(digest: Sha256) -> Self {
        Self(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Sha256Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).ok_or_else(|| format!("{text:?} is not a SHA-256 in hexadecimal (64 digits)"))
    }
}

impl TryFrom<String> for Sha256Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Sha256Digest> for String {
    fn from(digest: Sha256Digest) -> Self {
        digest.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second example of FIPS 180-2, appendix B.
    #[test]
    fn a_known_text_has_its_known_digest() {
        let text: &[u8] = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        let known = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";
        assert_eq!(Sha256Digest::of(text, |_| Ok(())).unwrap().to_string(), known);
        assert_eq!(Sha256Digest::parse(&known.to_uppercase()).unwrap().to_string(), known);
    }

    #[test]
    fn anything_else_is_no_digest() {
        for text in ["", "12", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65), &"é".repeat(32)] {
            assert!(text.parse::<Sha256Digest>().is_err(), "{text:?}");
        }
    }
}
