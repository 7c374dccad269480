//! Why the journal could not be used.

use std::io;
use std::path::PathBuf;

use super::{reserve, schema};

/// Why the journal could not be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// SQLite's complaint.
    #[error("the journal {path} cannot be used: {reason}")]
    Sqlite {
        /// The journal.
        path: PathBuf,
        /// SQLite's reason.
        reason: rusqlite::Error,
    },
    /// Its directory could not be made.
    #[error("cannot prepare the state directory {path}: {reason}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
    /// A newer version of this tool wrote it.
    #[error(
        "the journal {path} has version {found}, this nix-unroot knows up to {}: use the newer nix-unroot that wrote it (when there \
         never was one, the journal is damaged: move it away, and run nix-unroot rollback --from-copy)",
        schema::VERSION
    )]
    Newer {
        /// The journal.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// It does not say what its copy says, or SQLite finds it broken.
    #[error(
        "the journal {path} is damaged ({what}); its copy has all that is needed to go back: nix-unroot rollback --from-copy"
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Its copy cannot be read or written.
    #[error("the journal's copy {path} cannot be used: {reason}")]
    Copy {
        /// The copy.
        path: PathBuf,
        /// The reason.
        reason: io::Error,
    },
    /// There is no room for what a run records.
    #[error("there is no room for the journal {path}: free {} MiB on its file system", reserve::SIZE >> 20)]
    NoRoom {
        /// The journal.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A row holds something that this version does not know.
    #[error(
        "the journal {path} holds {what}, which this nix-unroot does not know: use the version that wrote it"
    )]
    Unknown {
        /// The journal.
        path: PathBuf,
        /// What is unknown.
        what: String,
    },
}
