//! Store paths, as they occur in text that nobody vouches for.

use std::borrow::Borrow;
use std::fmt;

use helper_common::store_name::{self, HASH, is_valid as valid, name_byte};

/// The store directory. Nix binaries have it compiled in.
pub const STORE_DIR: &str = "/nix/store";
/// What every record of the protocol begins with.
pub const PREFIX: &[u8] = b"/nix/store/";
/// The longest base name.
pub const MAX_BASE_NAME: usize = store_name::MAX;
/// The longest text that [`find_all`] has to see at once to recognise a store path: the path and the byte that ends it.
pub const MAX_MATCH: usize = 1 + MAX_BASE_NAME + 1;

/// The base name of a store path: `HASH-NAME`, all ASCII, without a slash, so that it can neither leave the store nor break
/// the protocol.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StorePath(Box<[u8]>);

impl StorePath {
    /// Takes a base name that Nix itself would take ([`store_name::is_valid`]).
    pub fn from_base_name(text: &[u8]) -> Option<Self> {
        valid(text).then(|| Self(text.into()))
    }

    /// `HASH-NAME`.
    pub fn base_name(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for StorePath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE_DIR}/{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The base name of the store path that `path` is or lies below.
pub fn containing(path: &[u8]) -> Option<&[u8]> {
    let below = path.strip_prefix(PREFIX)?;
    let base = below.split(|byte| *byte == b'/').next()?;
    valid(base).then_some(base)
}

/// Every base name of a store path that stands behind a slash anywhere in `text`. Behind any slash and not only behind
/// `/nix/store/`, because a container may see the store in another place, and a mount table names it by its place in its file
/// system. What is in no store is dropped by the daemon. A name ends where a byte follows that cannot be part of one, so
/// ` (deleted)` needs no care. Each item is the base name and the index just behind it; an index at the end of `text` means that
/// the name may have been cut off there.
pub fn find_all(text: &[u8]) -> impl Iterator<Item = (&[u8], usize)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let start = from + text.get(from..)?.iter().position(|byte| *byte == b'/')? + 1;
            from = start;
            // The dash is asked for first: that rules out nearly every slash.
            if text.get(start + HASH) == Some(&b'-') {
                let end = start + text[start..].iter().take_while(|byte| name_byte(**byte)).count();
                if valid(&text[start..end]) {
                    from = end;
                    return Some((&text[start..end], end));
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789abcdfghijklmnpqrsvwxyz";

    fn found(text: &str) -> Vec<String> {
        find_all(text.as_bytes()).map(|(base, _)| String::from_utf8(base.to_vec()).unwrap()).collect()
    }

    #[test]
    fn base_names() {
        let longest = "a".repeat(211);
        for name in ["a", "hello-2.12", "x?=+._-", ".hidden", "...", longest.as_str()] {
            assert!(StorePath::from_base_name(format!("{HASH}-{name}").as_bytes()).is_some(), "{name}");
        }
        let long = "a".repeat(212);
        for name in ["", ".", "..", "../etc", "a/b", "a b", "a\nb", "a\0", "ü", ".-a", "..-a", &long] {
            assert!(StorePath::from_base_name(format!("{HASH}-{name}").as_bytes()).is_none(), "{name:?}");
        }
        for base in
            ["", "-a", HASH, "e123456789abcdfghijklmnpqrsvwxyz-a", "0123456789ABCDFGHIJKLMNPQRSVWXYZ-a"]
        {
            assert!(StorePath::from_base_name(base.as_bytes()).is_none(), "{base}");
        }
        assert!(StorePath::from_base_name(format!("{HASH}+a").as_bytes()).is_none(), "no dash");
    }

    #[test]
    fn the_path_that_holds_another() {
        let base = format!("{HASH}-a");
        for text in [
            format!("/nix/store/{base}"),
            format!("/nix/store/{base}/bin/\n/x"),
            format!("/nix/store/{base}/"),
        ] {
            assert_eq!(containing(text.as_bytes()), Some(base.as_bytes()), "{text}");
        }
        let evil = format!("/nix/store/{base} (deleted)");
        for text in [
            "/nix/store",
            "/nix/store/",
            "/nix/store/.links/x",
            "/home/a",
            "",
            &format!("/x/nix/store/{base}"),
            &evil,
        ] {
            assert_eq!(containing(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn anywhere_in_a_text() {
        let (a, b) = (format!("{HASH}-a"), format!("{HASH}-b.drv"));
        for (text, expected) in [
            (format!("/nix/store/{a}"), vec![&a]),
            (format!("/nix/store/{a} (deleted)"), vec![&a]),
            (format!("PATH=/nix/store/{a}/bin:/nix/store/{b}:/x\0Y=1"), vec![&a, &b]),
            (format!("7f00-7f01 r--p 0 fe:00 1   /nix/store/{a}/lib/with space.so (deleted)\n"), vec![&a]),
            (format!("|/nix/store/{b} %P %u"), vec![&b]),
            (format!("/mnt/host/nix/store/{a}/x"), vec![&a]),
            (format!("/nix/store//nix/store/{a}"), vec![&a]),
            (format!("/nix/store/nix/store/{a}"), vec![&a]),
            (format!("xxx/nix/storx/nix/store/{a}/nix/store/{b}"), vec![&a, &b]),
            (format!("36 35 8:1 /@nix/store/{a}/bin /app rw - btrfs /dev/sda1 rw,subvol=/{b}"), vec![&a, &b]),
            (format!("/mnt/{a}/{b}"), vec![&a, &b]),
            (format!("{a} x{HASH}-/{HASH}-"), vec![]),
            (format!("/nix/store/{a}\n/nix/store/short\n/nix/store/"), vec![&a]),
            (format!("/nix/store/{}-", HASH), vec![]),
            ("/nix/sto".to_owned(), vec![]),
            ("x".to_owned(), vec![]),
            (String::new(), vec![]),
        ] {
            assert_eq!(found(&text).iter().collect::<Vec<_>>(), expected, "{text:?}");
        }
        assert!(
            found(&format!("/nix/store/{HASH}-{}", "a".repeat(212))).is_empty(),
            "too long to be any path"
        );
    }
}
