//! The base name of a store path: `HASH-NAME`.

/// Characters of the hash.
pub const HASH: usize = 32;
/// The longest name behind hash and dash (`src/libstore/path.cc` in Nix).
pub const MAX_NAME: usize = 211;
/// The longest base name.
pub const MAX: usize = HASH + 1 + MAX_NAME;

/// Would Nix take this for a base name? 32 characters of its base-32, a dash, 1 to 211 characters of `[0-9A-Za-z+-._?=]`, not beginning
/// with a `.` or `..` component (`checkName` in `src/libstore/path.cc`). So it has no slash, and cannot leave the store.
#[must_use]
pub fn is_valid(base: &[u8]) -> bool {
    if base.len() > MAX || base.len() < HASH + 2 || base[HASH] != b'-' {
        return false;
    }
    let (hash, name) = (&base[..HASH], &base[HASH + 1..]);
    let dots = matches!(name, b"." | b"..") || name.starts_with(b".-") || name.starts_with(b"..-");
    hash.iter().all(|byte| hash_byte(*byte)) && name.iter().all(|byte| name_byte(*byte)) && !dots
}

/// Nix's base-32 has no e, o, t, u (`src/libutil/base-nix-32.cc`).
fn hash_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'd' | b'f'..=b'n' | b'p'..=b's' | b'v'..=b'z')
}

/// May this byte be in the name?
#[must_use]
pub fn name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte)
}
