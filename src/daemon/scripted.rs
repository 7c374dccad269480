//! The other end of a connection in a test: it says its lines and records what it hears.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::connection::{DAEMON_MAGIC, message};

/// What a daemon will say.
pub(super) struct Script(Vec<u8>);

impl Script {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// A whole handshake of protocol 1.`minor` with the given trust flag.
    pub(super) fn greeting(minor: u8, trust: u64) -> Self {
        Self::greeting_without_end(minor, trust).number(message::LAST)
    }

    pub(super) fn greeting_without_end(minor: u8, trust: u64) -> Self {
        let start = Self::new().number(DAEMON_MAGIC).number(0x100 | u64::from(minor));
        let start = if minor >= 38 { start.number(1).text("some-feature") } else { start };
        start.text("2.34.8").number(trust)
    }

    pub(super) fn number(mut self, number: u64) -> Self {
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(super) fn text(self, text: &str) -> Self {
        let mut script = self.number(text.len() as u64);
        script.0.extend(text.bytes());
        script.0.resize(script.0.len().next_multiple_of(8), 0);
        script
    }

    pub(super) fn error(self, text: &str) -> Self {
        let start = self.number(message::ERROR).text("Error").number(0).text("Error").text(text).number(0);
        start.number(1).number(0).text("while testing")
    }
}

/// Runs `client` against a daemon that says all of `script` and hangs up; what `client` returned and what it sent.
pub(super) fn converse<T>(script: Script, client: impl FnOnce(UnixStream) -> T) -> (T, Vec<u8>) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let daemon = std::thread::spawn(move || {
        theirs.write_all(&script.0).unwrap();
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        theirs.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let mut heard = Vec::new();
        let _ = theirs.read_to_end(&mut heard);
        heard
    });
    let result = client(ours);
    (result, daemon.join().unwrap())
}

impl Script {
    pub(super) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn then(self, next: Self) -> Self {
        self.raw(&next.0)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}
