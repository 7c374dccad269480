//! Numbers and strings on the wire, with a deadline and limits.
//!
//! Everything is a little-endian 64-bit number, or a string: its length, its bytes, and zeros up to a multiple of
//! eight (`src/libutil/serialise.cc`).

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::DaemonError;

/// The most bytes that one operation may answer. A listing of a million GC roots stays below it.
const MOST_PER_OPERATION: u64 = 512 << 20;
/// The longest string that is taken: a path, a message.
const LONGEST_STRING: u64 = 1 << 20;

/// One end of a connection. [`Wire::begin`] starts the clock of an operation; everything after it counts against
/// that operation's time and bytes.
#[derive(Debug)]
pub(super) struct Wire {
    stream: UnixStream,
    unread: Box<[u8]>,
    from: usize,
    to: usize,
    unsent: Vec<u8>,
    operation: &'static str,
    limit: Duration,
    deadline: Instant,
    allowance: u64,
}

impl Wire {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            unread: vec![0; 16 << 10].into_boxed_slice(),
            from: 0,
            to: 0,
            unsent: Vec::new(),
            operation: "connecting",
            limit: Duration::ZERO,
            deadline: Instant::now(),
            allowance: 0,
        }
    }

    pub(super) fn begin(&mut self, operation: &'static str, limit: Duration) {
        self.operation = operation;
        self.limit = limit;
        self.deadline = Instant::now() + limit;
        self.allowance = MOST_PER_OPERATION;
        self.unsent.clear();
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(super) fn put(&mut self, number: u64) -> &mut Self {
        self.put_raw(&number.to_le_bytes())
    }

    pub(super) fn put_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        // A usize fits into 64 bits on every platform Nix runs on.
        self.put(bytes.len() as u64).put_raw(bytes).put_raw(&[0; 7][..bytes.len().wrapping_neg() % 8])
    }

    pub(super) fn put_raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.unsent.extend_from_slice(bytes);
        self
    }

    pub(super) fn flush(&mut self) -> Result<(), DaemonError> {
        let unsent = std::mem::take(&mut self.unsent);
        let mut rest = unsent.as_slice();
        while !rest.is_empty() {
            let left = self.time_left()?;
            match self.stream.set_write_timeout(Some(left)).and_then(|()| self.stream.write(rest)) {
                Ok(0) => return Err(DaemonError::Closed { operation: self.operation }),
                Ok(written) => rest = &rest[written..],
                Err(error) => self.excuse(error)?,
            }
        }
        Ok(())
    }

    pub(super) fn number(&mut self) -> Result<u64, DaemonError> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A number that counts things to follow: refused when so many things could not fit into the operation's bytes,
    /// as each takes eight at least.
    pub(super) fn count(&mut self) -> Result<u64, DaemonError> {
        let count = self.number()?;
        if count > self.allowance / 8 {
            return Err(self.nonsense(format!("it announces {count} items")));
        }
        Ok(count)
    }

    pub(super) fn flag(&mut self) -> Result<bool, DaemonError> {
        Ok(self.number()? != 0)
    }

    pub(super) fn bytes(&mut self) -> Result<Vec<u8>, DaemonError> {
        let length = self.number()?;
        if length > LONGEST_STRING {
            return Err(self.nonsense(format!("it announces a string of {length} bytes")));
        }
        // At most LONGEST_STRING, so it fits and is cheap.
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        let mut padding = [0; 7];
        let padding = &mut padding[..bytes.len().wrapping_neg() % 8];
        self.fill(padding)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(self.nonsense("padding that is not zero".to_owned()));
        }
        Ok(bytes)
    }

    pub(super) fn text(&mut self) -> Result<String, DaemonError> {
        Ok(String::from_utf8_lossy(&self.bytes()?).into_owned())
    }

    pub(super) fn nonsense(&self, reason: String) -> DaemonError {
        DaemonError::Protocol { operation: self.operation, reason }
    }

    pub(super) fn refused(&self, message: &str) -> DaemonError {
        DaemonError::Refused { operation: self.operation, message: crate::system::text::printable(message) }
    }

    fn fill(&mut self, mut target: &mut [u8]) -> Result<(), DaemonError> {
        self.allowance = self
            .allowance
            .checked_sub(target.len() as u64)
            .ok_or_else(|| self.nonsense(format!("it is longer than {MOST_PER_OPERATION} bytes")))?;
        while !target.is_empty() {
            if self.from == self.to {
                self.receive()?;
            }
            let taken = target.len().min(self.to - self.from);
            let (now, later) = target.split_at_mut(taken);
            now.copy_from_slice(&self.unread[self.from..self.from + taken]);
            self.from += taken;
            target = later;
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), DaemonError> {
        loop {
            let left = self.time_left()?;
            match self.stream.set_read_timeout(Some(left)).and_then(|()| self.stream.read(&mut self.unread)) {
                Ok(0) => return Err(DaemonError::Closed { operation: self.operation }),
                Ok(read) => {
                    (self.from, self.to) = (0, read);
                    return Ok(());
                }
                Err(error) => self.excuse(error)?,
            }
        }
    }

    fn time_left(&self) -> Result<Duration, DaemonError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(DaemonError::TimedOut { operation: self.operation, limit: self.limit });
        }
        Ok(left)
    }

    /// Lets an interrupted or timed-out call be tried again, when the deadline decides; a peer that is gone has closed.
    fn excuse(&self, reason: io::Error) -> Result<(), DaemonError> {
        match reason.kind() {
            io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(()),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                Err(DaemonError::Closed { operation: self.operation })
            }
            _ => Err(DaemonError::Io { operation: self.operation, reason }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Wire, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut wire = Wire::new(ours);
        wire.begin("test", Duration::from_millis(200));
        (wire, theirs)
    }

    #[test]
    fn strings_are_padded_to_eight_and_come_back() {
        for text in ["", "1234567", "12345678", "123456789"] {
            let (mut wire, theirs) = pair();
            wire.put_bytes(text.as_bytes()).flush().unwrap();
            let mut other = Wire::new(theirs);
            other.begin("test", Duration::from_secs(5));
            assert_eq!(other.text().unwrap(), text);
            other.put(7).flush().unwrap();
            assert_eq!(wire.number().unwrap(), 7);
        }
    }

    #[test]
    fn lengths_and_padding_are_not_believed() {
        let rows: [(&[u64], &str); 3] = [
            (&[u64::MAX], "announces a string"),
            (&[LONGEST_STRING + 1], "announces a string"),
            (&[1, 0x0100_0000_0000_0041], "padding"),
        ];
        for (numbers, expected) in rows {
            let (mut wire, mut theirs) = pair();
            for number in numbers {
                theirs.write_all(&number.to_le_bytes()).unwrap();
            }
            let error = wire.bytes().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let (mut wire, mut theirs) = pair();
        theirs.write_all(&u64::MAX.to_le_bytes()).unwrap();
        assert!(matches!(wire.count(), Err(DaemonError::Protocol { .. })));
    }

    #[test]
    fn a_daemon_that_trickles_or_stops_does_not_hold_us() {
        let (mut wire, mut theirs) = pair();
        let begun = Instant::now();
        let trickle = std::thread::spawn(move || {
            while theirs.write_all(&[0]).is_ok() && begun.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(60));
            }
        });
        assert!(matches!(wire.bytes().and(wire.bytes()), Err(DaemonError::TimedOut { .. })));
        drop(wire);
        trickle.join().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(3));
        let (mut wire, theirs) = pair();
        drop(theirs);
        assert!(matches!(wire.number(), Err(DaemonError::Closed { operation: "test" })));
    }
}
