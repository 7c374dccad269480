//! The handshake, and the loop that passes over what the daemon says before it answers.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::DaemonError;
use super::wire::Wire;
use crate::system::text::printable;

/// What the client says first.
pub(super) const CLIENT_MAGIC: u64 = 0x6e69_7863;
/// What the daemon answers.
pub(super) const DAEMON_MAGIC: u64 = 0x6478_696f;
/// The protocol that this client speaks, 1.38. What came later is negotiated by features, of which we ask none.
pub(super) const SPOKEN: (u64, u64) = (1, 38);
/// The first protocol that carries the trust flag.
const TRUST_SINCE: u64 = 35;
/// The first protocol that exchanges features.
const FEATURES_SINCE: u64 = 38;

/// Messages that come before an answer (`worker-protocol.hh`).
pub(super) mod message {
    pub(in crate::daemon) const NEXT: u64 = 0x6f6c_6d67;
    pub(in crate::daemon) const LAST: u64 = 0x616c_7473;
    pub(in crate::daemon) const ERROR: u64 = 0x6378_7470;
    pub(in crate::daemon) const WRITE: u64 = 0x6461_7416;
    pub(in crate::daemon) const START_ACTIVITY: u64 = 0x5354_5254;
    pub(in crate::daemon) const STOP_ACTIVITY: u64 = 0x5354_4f50;
    pub(in crate::daemon) const RESULT: u64 = 0x5253_4c54;
}

/// How long a connection and its handshake may take: the daemon may have to be started first.
const HANDSHAKE_TIME: Duration = Duration::from_secs(60);
/// How many of the daemon's messages are kept, the last ones.
const MESSAGES_KEPT: usize = 20;

/// Whether the daemon trusts the client: as root, or as one of `trusted-users`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// It does.
    Trusted,
    /// It does not.
    NotTrusted,
    /// It does not say, as for a store behind the daemon that has no notion of trust.
    Unknown,
}

/// A connection after its handshake. It ends when dropped; the daemon then lets go of the temporary roots that it
/// held for it, a moment later.
#[derive(Debug)]
pub struct Connection {
    pub(super) wire: Wire,
    pub(super) minor: u64,
    trust: Trust,
    nix_version: String,
    messages: Vec<String>,
}

impl Connection {
    /// Connects to the daemon's socket and greets it.
    ///
    /// # Errors
    /// When the socket cannot be reached, when the daemon hangs up (as it does on a user it does not allow) or answers
    /// nonsense, and when it is too old to say whether it trusts us.
    pub fn open(socket: &Path) -> Result<Self, DaemonError> {
        let stream = UnixStream::connect(socket)
            .map_err(|reason| DaemonError::Connect { socket: socket.to_owned(), reason })?;
        Self::over(stream)
    }

    /// Greets the daemon at the other end of `stream`.
    ///
    /// # Errors
    /// As for [`Connection::open`].
    pub fn over(stream: UnixStream) -> Result<Self, DaemonError> {
        let mut wire = Wire::new(stream);
        wire.begin("greeting the daemon", HANDSHAKE_TIME);
        wire.put(CLIENT_MAGIC).put(SPOKEN.0 << 8 | SPOKEN.1).flush()?;
        let magic = wire.number()?;
        if magic != DAEMON_MAGIC {
            return Err(wire.nonsense(format!("it begins with {magic:#x}, so it is no Nix daemon")));
        }
        let version = wire.number()?;
        let (major, minor) = (version >> 8 & 0xff, (version & 0xff).min(SPOKEN.1));
        let mut connection =
            Self { wire, minor, trust: Trust::Unknown, nix_version: String::new(), messages: Vec::new() };
        if major != SPOKEN.0 || minor < TRUST_SINCE {
            return Err(connection.refusal(major));
        }
        connection.exchange()?;
        Ok(connection)
    }

    /// What follows the version numbers: features, two fields that nobody reads any more, the daemon's version and trust.
    fn exchange(&mut self) -> Result<(), DaemonError> {
        let wire = &mut self.wire;
        if self.minor >= FEATURES_SINCE {
            wire.put(0).flush()?;
            for _ in 0..wire.count()? {
                wire.bytes()?;
            }
        }
        // CPU affinity, and space to reserve.
        wire.put(0).put(0).flush()?;
        self.nix_version = printable(&wire.text()?);
        self.trust = match wire.number()? {
            0 => Trust::Unknown,
            1 => Trust::Trusted,
            2 => Trust::NotTrusted,
            other => return Err(wire.nonsense(format!("{other} as its trust"))),
        };
        self.until_answer()
    }

    /// Why there is no talking to a daemon of an old version. Our gate claims to be one when it turns a user away,
    /// because below 1.33 an error may follow the greeting at once.
    fn refusal(&mut self, major: u64) -> DaemonError {
        let minor = self.minor;
        if major == SPOKEN.0 && minor < 33 {
            // A gate that has hung up already may still have left its message.
            let _ = self.wire.put(0).put(0).flush();
            if let Err(error @ DaemonError::Refused { .. }) = self.until_answer() {
                return error;
            }
        }
        DaemonError::TooOld { major, minor }
    }

    /// Whether the daemon trusts this connection.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// The version of Nix that the daemon says it is, made printable.
    pub fn nix_version(&self) -> &str {
        &self.nix_version
    }

    /// The last things the daemon said beside its answers, made printable.
    pub fn messages(&self) -> &[String] {
        &self.messages
    }

    /// The connection's socket.
    pub fn stream(&self) -> &UnixStream {
        self.wire.stream()
    }

    /// Passes over log lines and progress until the answer follows.
    pub(super) fn until_answer(&mut self) -> Result<(), DaemonError> {
        loop {
            match self.wire.number()? {
                message::LAST => return Ok(()),
                message::ERROR => return Err(self.error()?),
                message::NEXT => {
                    let text = self.wire.text()?;
                    self.keep(&text);
                }
                message::WRITE => drop(self.wire.bytes()?),
                message::START_ACTIVITY => {
                    // id, level, kind; text; fields; parent
                    for _ in 0..3 {
                        self.wire.number()?;
                    }
                    self.wire.bytes()?;
                    self.fields()?;
                    self.wire.number()?;
                }
                message::STOP_ACTIVITY => drop(self.wire.number()?),
                message::RESULT => {
                    // id, kind
                    self.wire.number()?;
                    self.wire.number()?;
                    self.fields()?;
                }
                other => return Err(self.wire.nonsense(format!("a message of kind {other:#x}"))),
            }
        }
    }

    fn fields(&mut self) -> Result<(), DaemonError> {
        for _ in 0..self.wire.count()? {
            match self.wire.number()? {
                0 => drop(self.wire.number()?),
                1 => drop(self.wire.bytes()?),
                other => return Err(self.wire.nonsense(format!("a field of kind {other}"))),
            }
        }
        Ok(())
    }

    /// The error that follows [`message::ERROR`]: a type, a level, a name, the message, no position, and traces.
    fn error(&mut self) -> Result<DaemonError, DaemonError> {
        self.wire.bytes()?;
        self.wire.number()?;
        self.wire.bytes()?;
        let text = self.wire.text()?;
        self.wire.number()?;
        for _ in 0..self.wire.count()? {
            self.wire.number()?;
            self.wire.bytes()?;
        }
        Ok(self.wire.refused(&text))
    }

    fn keep(&mut self, text: &str) {
        if self.messages.len() == MESSAGES_KEPT {
            self.messages.remove(0);
        }
        self.messages.push(printable(text));
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripted::{Script, converse};
    use super::*;

    #[test]
    fn reads_trust_and_version_of_every_protocol_that_carries_them() {
        let rows = [
            (35, 1, Trust::Trusted),
            (37, 2, Trust::NotTrusted),
            (38, 0, Trust::Unknown),
            (99, 1, Trust::Trusted),
        ];
        for (minor, flag, expected) in rows {
            let (connection, sent) = converse(Script::greeting(minor, flag), |stream| {
                Connection::over(stream).map(|it| (it.trust(), it.minor))
            });
            assert_eq!(connection.unwrap(), (expected, u64::from(minor).min(38)), "1.{minor}");
            // Since 1.38 the client sends a count of features first; then two fields that nobody reads.
            let words = if minor >= 38 {
                vec![CLIENT_MAGIC, 0x126, 0, 0, 0]
            } else {
                vec![CLIENT_MAGIC, 0x126, 0, 0]
            };
            assert_eq!(sent, words.into_iter().flat_map(u64::to_le_bytes).collect::<Vec<_>>(), "1.{minor}");
        }
    }

    #[test]
    fn refuses_what_is_no_daemon_or_too_old() {
        let rows = [
            (Script::new().number(7), "begins with 0x7"),
            (Script::new().number(DAEMON_MAGIC).number(0x122), "1.34, older than 1.35"),
            (Script::new().number(DAEMON_MAGIC).number(0x226), "2.38"),
            (
                Script::new().number(DAEMON_MAGIC).number(0x120).error("alice may not"),
                "the daemon says: alice may not",
            ),
            (Script::new().number(DAEMON_MAGIC).number(0x120).number(message::LAST), "1.32, older"),
            (Script::new().number(DAEMON_MAGIC), "closed the connection"),
            (Script::greeting(38, 3), "3 as its trust"),
        ];
        for (script, expected) in rows {
            let (result, _) = converse(script, Connection::over);
            let error = result.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn passes_over_everything_that_may_come_before_an_answer() {
        let script = Script::greeting_without_end(38, 1)
            .number(message::NEXT)
            .text("\x1b[31mwarning\x1b[0m\n")
            .number(message::START_ACTIVITY)
            .number(1)
            .number(3)
            .number(105)
            .text("building")
            .number(2)
            .number(0)
            .number(5)
            .number(1)
            .text("x")
            .number(0)
            .number(message::RESULT)
            .number(1)
            .number(101)
            .number(1)
            .number(1)
            .text("line")
            .number(message::STOP_ACTIVITY)
            .number(1)
            .number(message::WRITE)
            .text("data")
            .number(message::LAST);
        let (messages, _) =
            converse(script, |stream| Connection::over(stream).map(|it| it.messages().to_vec()));
        assert_eq!(messages.unwrap(), ["warning"]);
        let script = Script::greeting_without_end(38, 1).error("\x1b[1mno\x1b[0m room");
        let error = converse(script, Connection::over).0.unwrap_err().to_string();
        assert_eq!(error, "greeting the daemon: the daemon says: no room");
        let script = Script::greeting_without_end(38, 1).number(0xdead);
        assert!(matches!(converse(script, Connection::over).0, Err(DaemonError::Protocol { .. })));
    }
}
