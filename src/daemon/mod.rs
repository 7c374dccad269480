//! A small client of Nix's worker protocol, as `nix-daemon` speaks it on its socket.
//!
//! Only what a live check of a machine needs: the handshake with its trust flag, adding one file, one build, garbage
//! collector roots, and deleting chosen paths. The tool speaks the protocol itself because root must not run `nix`
//! once `nix` belongs to somebody else.
//!
//! The daemon is **less trusted than the caller**: it runs as `nix`, the caller as root. So every length is checked
//! before anything is allocated, every operation has a deadline and a limit of bytes, and text of the daemon's is
//! made [`printable`] before it gets near a terminal.
//!
//! The facts of the protocol are those of Nix 2.34, `src/libstore/{worker-protocol,worker-protocol-connection,
//! remote-store,daemon}.cc` and `src/libutil/serialise.cc`.

mod connection;
mod derivation;
mod error;
mod operations;
#[cfg(test)]
mod scripted;
mod wire;

pub use connection::{Connection, Trust};
pub use derivation::Derivation;
pub use error::DaemonError;
pub use operations::{BuildResult, BuildStatus, Root};
