//! The answer to one client, in a form that a reader cannot take for complete before it is.
//!
//! The protocol is Nix's `requestRuntimeRoots` (`src/libstore/gc.cc`): store paths, each followed by a NUL, until the end of
//! file. The end of file is the only end mark, so a scanner that dies would look like one that found little. But a text that is
//! no store path makes the daemon give up, also when it stands unfinished before the end of file (`readLine` with `eofOk`
//! returns it). So at every moment before the end, what was sent ends with a bare `/nix/store/`, which is no store path:
//!
//! ```text
//! accepted           /nix/store/
//! one or more roots             HASH-a \0 /nix/store/ HASH-b \0 /nix/store/
//! the end                                                                  000...-nix-root-scan \0
//! or, in doubt                                                             !nix-root-scan ... \0
//! ```
//!
//! Each piece goes out in one `write` that the kernel queues whole or not at all, so no death of this process, SIGKILL
//! included, leaves another end than these.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::store_path::{MAX_BASE_NAME, PREFIX, StorePath};

/// The last record of a complete answer: a path that can be parsed but is in no store, so the daemon drops it.
pub const END: &[u8] = b"00000000000000000000000000000000-nix-root-scan\0";
/// The last record of an answer in doubt. Nix quotes it in its error message, so it tells people where to look. The first
/// character is in no hash.
pub const DOUBT: &[u8] =
    b"!nix-root-scan is not sure that it saw every root: see journalctl -u nix-root-scan\0";

/// `unix_stream_sendmsg` (`net/unix/af_unix.c`) puts at most half the send buffer less 64 bytes into one packet. 2240 is what
/// the smallest buffer that the kernel allows leaves.
const PIECE: usize = 2048;
const _: () = assert!(MAX_BASE_NAME + 1 + PREFIX.len() <= PIECE && DOUBT.len() <= PIECE);

/// How long a client may keep us from the next one.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For one piece.
    pub piece: Duration,
    /// For everything after the scan.
    pub whole: Duration,
    /// And for each root. Nix takes some microseconds for one, but half a millisecond when somebody has made up 100,000 paths
    /// whose hashes begin alike (Nix 2.34.8 puts those into one bucket).
    pub root: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { piece: Duration::from_secs(5), whole: Duration::from_secs(30), root: Duration::from_millis(2) }
    }
}

/// An answer that was begun. Dropping it, or dying, leaves it malformed.
#[derive(Debug)]
#[must_use]
pub struct Answer {
    stream: UnixStream,
    patience: Patience,
    end: Instant,
}

impl Answer {
    /// Makes the connection fail closed. To be called as soon as there is one.
    ///
    /// # Errors
    /// When the client is gone.
    pub fn begin(stream: UnixStream, patience: Patience) -> io::Result<Self> {
        let mut answer = Self { stream, patience, end: Instant::now() + patience.whole };
        // First of all, before even the time limit is set: a new connection has room for it.
        answer.send(PREFIX)?;
        answer.stream.set_write_timeout(Some(patience.piece))?;
        Ok(answer)
    }

    /// Sends the roots, and that these are all.
    ///
    /// # Errors
    /// When the client is gone or too slow. It then has a malformed answer.
    pub fn complete<'a>(mut self, roots: impl ExactSizeIterator<Item = &'a StorePath>) -> io::Result<()> {
        let count = u32::try_from(roots.len()).unwrap_or(u32::MAX);
        self.end = Instant::now() + self.patience.whole + self.patience.root * count;
        let mut piece = Vec::with_capacity(PIECE);
        for root in roots {
            if piece.len() + root.base_name().len() + 1 + PREFIX.len() > PIECE {
                self.send(&piece)?;
                piece.clear();
            }
            piece.extend_from_slice(root.base_name());
            piece.push(0);
            piece.extend_from_slice(PREFIX);
        }
        if !piece.is_empty() {
            self.send(&piece)?;
        }
        self.send(END)
    }

    /// Makes the client give up, with a text that says where the reason can be found.
    ///
    /// # Errors
    /// When the client is gone or too slow; it gives up all the same.
    pub fn refuse(mut self) -> io::Result<()> {
        self.end = Instant::now() + self.patience.whole;
        self.send(DOUBT)
    }

    fn send(&mut self, piece: &[u8]) -> io::Result<()> {
        if Instant::now() > self.end {
            return Err(io::ErrorKind::TimedOut.into());
        }
        loop {
            match self.stream.write(piece) {
                Ok(count) if count == piece.len() => return Ok(()),
                // Cannot happen (see PIECE); where the text ends now is unknown, so nothing may follow but the end in doubt.
                Ok(_) => {
                    let _ = self.stream.write(b"\0/nix/store/");
                    return Err(io::ErrorKind::WriteZero.into());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests;
