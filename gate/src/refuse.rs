//! Telling a client why it is turned away.
//!
//! The root daemon just closes the connection, and the client reports a broken pipe or an early end of file. The protocol can do
//! better, and without reading a byte of what the client says: a server that claims an old version of the protocol
//! may send an error right after its greeting (`BasicClientConnection::handshake` and `processStderrReturn` in Nix's
//! `worker-protocol-connection.cc`).

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Version 1.32: the newest in which the server says nothing between its greeting and the error.
const VERSION: u64 = 0x120;
/// `WORKER_MAGIC_2`.
const GREETING: u64 = 0x6478_696f;
/// `STDERR_ERROR`.
const ERROR: u64 = 0x6378_7470;

/// How long a client may take to hang up.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// How much it may say meanwhile.
const ENOUGH: usize = 64 * 1024;

/// Sends the message to the peer on standard input, as well as it can be done; then the connection may be closed.
pub fn tell(message: &str) {
    let Ok(socket) = std::io::stdin().as_fd().try_clone_to_owned() else { return };
    // Best effort: the peer may be gone, and it is refused in any case.
    let _ = talk(UnixStream::from(socket), message);
}

/// The same without waiting, for a process that has others to look after. The caller keeps the connection for [`PATIENCE`], so that the
/// client reads this and not that the other end is gone.
pub fn tell_at_once(mut socket: &UnixStream, message: &str) {
    // A new connection has room for far more than this; and it is refused in any case.
    let _ = socket
        .set_nonblocking(true)
        .and_then(|()| socket.write_all(&encode(message)))
        .and_then(|()| socket.shutdown(std::net::Shutdown::Write));
}

fn talk(mut socket: UnixStream, message: &str) -> std::io::Result<()> {
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.write_all(&encode(message))?;
    socket.shutdown(std::net::Shutdown::Write)?;
    drain(&socket)
}

/// Reads and forgets. A client that writes to a closed connection would report that instead of the message.
fn drain(mut socket: &UnixStream) -> std::io::Result<()> {
    let end = Instant::now() + PATIENCE;
    let (mut heard, mut buffer) = (0, [0; 4096]);
    while heard < ENOUGH {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut buffer)? {
            0 => break,
            count => heard += count,
        }
    }
    Ok(())
}

/// The greeting and the error, as `readError` in Nix's `serialise.cc` takes it: type, level, a name that is no longer used, message,
/// no position, no traces.
fn encode(message: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in [GREETING, VERSION, ERROR] {
        put_number(&mut bytes, number);
    }
    put_string(&mut bytes, "Error");
    put_number(&mut bytes, 0);
    put_string(&mut bytes, "Error");
    put_string(&mut bytes, message);
    put_number(&mut bytes, 0);
    put_number(&mut bytes, 0);
    bytes
}

/// For fuzzing: what is encoded is as long as it says.
#[cfg(any(test, fuzzing))]
pub(crate) fn check(message: &str) {
    let bytes = encode(message);
    assert_eq!(bytes[64..72], (message.len() as u64).to_le_bytes());
    assert_eq!(bytes.len(), 72 + message.len().next_multiple_of(8) + 16);
}

fn put_number(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend(number.to_le_bytes());
}

/// The length, and the text padded with zeros to a multiple of eight.
fn put_string(bytes: &mut Vec<u8>, text: &str) {
    put_number(bytes, text.len() as u64);
    bytes.extend(text.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_refusal() {
        let bytes = encode("no, Bob!x");
        assert_eq!(&bytes[..8], b"oixd\0\0\0\0");
        assert_eq!(&bytes[8..16], &[0x20, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[16..24], b"ptxc\0\0\0\0");
        assert_eq!(&bytes[24..40], b"\x05\0\0\0\0\0\0\0Error\0\0\0");
        assert_eq!(&bytes[64..88], b"\x09\0\0\0\0\0\0\0no, Bob!x\0\0\0\0\0\0\0");
        assert_eq!(bytes.len(), 88 + 16);
    }

    #[test]
    fn a_client_that_talks_first_gets_the_whole_message() {
        let (gate, mut client) = UnixStream::pair().unwrap();
        client.write_all(b"hello").unwrap();
        let gate = std::thread::spawn(move || talk(gate, "no"));
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, encode("no"));
        drop(client);
        gate.join().unwrap().unwrap();
    }

    #[test]
    fn a_client_that_talks_too_late_gets_it_as_well() {
        let (gate, mut client) = UnixStream::pair().unwrap();
        tell_at_once(&gate, "no");
        client.write_all(b"hello").unwrap();
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, encode("no"));
    }
}
