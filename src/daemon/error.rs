//! What can go wrong while one talks to a daemon.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The socket could not be reached.
    #[error("cannot connect to {socket}: {reason}; it is there while nix-daemon.socket runs (on a Mac the job org.nixos.nix-daemon, without an init system start-nix-daemon)", socket = socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
    /// The connection broke.
    #[error("{operation}: the connection to the daemon broke: {reason}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The system's reason.
        reason: io::Error,
    },
    /// The daemon closed the connection in the middle of something. That is also how it refuses a user.
    #[error(
        "{operation}: the daemon closed the connection; its log says why (where systemd runs it: journalctl -u 'nix-daemon*')"
    )]
    Closed {
        /// What was being done.
        operation: &'static str,
    },
    /// The daemon did not answer in time.
    #[error("{operation}: no answer from the daemon within {} s", limit.as_secs())]
    TimedOut {
        /// What was being done.
        operation: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The answer does not follow the protocol, or is larger than any answer should be.
    #[error("{operation}: the daemon's answer makes no sense: {reason}")]
    Protocol {
        /// What was being done.
        operation: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The daemon speaks a protocol that does not tell whether it trusts the client.
    #[error("the daemon speaks protocol {major}.{minor}, older than 1.35: it needs Nix 2.15 or newer")]
    TooOld {
        /// Major version.
        major: u64,
        /// Minor version.
        minor: u64,
    },
    /// The daemon carried the operation out as far as it could and said no; the text is its own, made printable.
    #[error("{operation}: the daemon says: {message}")]
    Refused {
        /// What was being done.
        operation: &'static str,
        /// The daemon's words.
        message: String,
    },
}
