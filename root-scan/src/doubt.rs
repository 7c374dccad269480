//! Why a scan cannot vouch for its result.

use std::fmt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// One reason for which a live path may be missing. A scan that meets one makes the garbage collection abort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// The kernel refused to show something that exists, or may exist.
    Unreadable {
        /// What could not be read.
        what: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// What a link points to cannot be seen, and never was since it was made.
    NeverSeen {
        /// The link below `gcroots` or `profiles`.
        link: PathBuf,
        /// What it points to.
        target: PathBuf,
        /// What the kernel said; `ETIMEDOUT` when it said nothing.
        errno: Errno,
    },
    /// More than this scanner is ready to hold or to walk: a broken or hostile user.
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
        /// Where the limit was met.
        at: PathBuf,
    },
    /// What is remembered of absent roots is not what was written.
    Damaged(PathBuf),
    /// What is seen now could not be remembered, so it would be lost when it can no longer be seen.
    Unwritable {
        /// What could not be written.
        what: PathBuf,
        /// Why.
        error: String,
    },
    /// Something kept changing its type while it was looked at.
    Unsteady(PathBuf),
    /// Processes may be hidden from us: the reason.
    Blind(String),
}

impl Doubt {
    /// The doubt about `what`, for the error that a system call gave.
    pub fn unreadable(what: impl AsRef<Path>, errno: Errno) -> Self {
        Self::Unreadable { what: what.as_ref().to_owned(), errno }
    }
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { what, errno } => {
                write!(
                    f,
                    "cannot look at {}: {}; a live store path may hide there",
                    printable(what),
                    errno.desc()
                )
            }
            Self::NeverSeen { link, target, errno } => {
                let why = if *errno == Errno::ETIMEDOUT { "no answer" } else { errno.desc() };
                let (link, target) = (printable(link), printable(target));
                write!(
                    f,
                    "the GC root {link} points to {target}, which cannot be seen ({why}) and never was: it may lead to a store path; \
                     make it visible, or remove {link} if it is not needed"
                )
            }
            Self::Limit { what, limit, at } => {
                write!(
                    f,
                    "more than {limit} {what} at {}; find out who made them and remove them",
                    printable(at)
                )
            }
            Self::Damaged(what) => write!(
                f,
                "{} is damaged, and with it the memory of roots in homes that are not mounted; mount them all, then remove it",
                printable(what)
            ),
            Self::Unwritable { what, error } => {
                write!(f, "cannot remember the roots in {}: {error}; make room for it", printable(what))
            }
            Self::Unsteady(what) => {
                write!(f, "{} kept changing while it was read; try again", printable(what))
            }
            Self::Blind(why) => write!(f, "processes may be hidden: {why}"),
        }
    }
}

impl std::error::Error for Doubt {}

/// A path as one line of harmless text: what a terminal or a log could take for something else is escaped.
pub fn printable(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '"' => text.push(c),
                // Escapes the backslash, control and format characters (also the bidirectional ones).
                _ => text.extend(c.escape_debug()),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn hostile_names_stay_on_their_line() {
        for (name, expected) in [
            (&b"/home/b\xc3\xa4r/it's"[..], "/home/bär/it's"),
            (b"a\tb\nc\x1b[2J\\", "a\\tb\\nc\\u{1b}[2J\\\\"),
            (b"\xff\xfe", "\\xff\\xfe"),
            ("\u{202e}gpj".as_bytes(), "\\u{202e}gpj"),
        ] {
            assert_eq!(printable(Path::new(OsStr::from_bytes(name))), expected);
        }
    }
}
