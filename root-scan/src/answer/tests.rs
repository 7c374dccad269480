use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};

use super::*;

/// What Nix 2.34.8 makes of an answer: the base names, or `None` when it throws. `readLine(eofOk)` gives the rest before the
/// end of file as a line; an empty line ends the list; `parseStorePath` wants the parent of the cleaned path to be the store.
fn as_nix_reads(answer: &[u8]) -> Option<BTreeSet<Vec<u8>>> {
    let mut found = BTreeSet::new();
    for line in answer.split(|byte| *byte == 0) {
        if line.is_empty() {
            break;
        }
        let base = line.strip_prefix(PREFIX)?;
        found.insert(StorePath::from_base_name(base)?.base_name().to_vec());
    }
    Some(found)
}

/// A pair of sockets that keeps the limits of single writes.
fn pair() -> (UnixStream, OwnedFd) {
    let kind = SockType::SeqPacket;
    let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap();
    (UnixStream::from(ours), theirs)
}

/// All pieces, each as it was written.
fn pieces(reader: &OwnedFd) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    loop {
        let mut buffer = [0; 8192];
        let count = recv(reader.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        if count == 0 {
            return pieces;
        }
        pieces.push(buffer[..count].to_vec());
    }
}

fn roots(count: usize) -> Vec<StorePath> {
    let name = |i: usize| format!("{i:032}-{}", "n".repeat(1 + i * 7 % 211));
    (1..=count).map(|i| StorePath::from_base_name(name(i).as_bytes()).unwrap()).collect()
}

#[test]
fn is_believed_only_when_complete() {
    for count in [0, 1, 2, 15, 16, 17, 1000] {
        let (ours, theirs) = pair();
        let roots = roots(count);
        let sent = roots.clone();
        let writer = std::thread::spawn(move || {
            Answer::begin(ours, Patience::default()).unwrap().complete(sent.iter()).unwrap();
        });
        let pieces = pieces(&theirs);
        writer.join().unwrap();
        for cut in 1..pieces.len() {
            let text = pieces[..cut].concat();
            assert!(text.ends_with(PREFIX) && as_nix_reads(&text).is_none(), "{count} roots, {cut} pieces");
        }
        assert!(pieces.iter().all(|piece| piece.len() <= PIECE), "{count}");
        let mut expected: BTreeSet<_> = roots.iter().map(|root| root.base_name().to_vec()).collect();
        expected.insert(END[..END.len() - 1].to_vec());
        assert_eq!(as_nix_reads(&pieces.concat()), Some(expected));
    }
}

/// The kernel may hand out a piece in parts while the reader is slow, but a reader that meets the end of file has all of it.
#[test]
fn no_piece_is_ever_split_even_by_the_smallest_buffer() {
    use nix::sys::socket::{setsockopt, sockopt::SndBuf};
    let (ours, theirs) = UnixStream::pair().unwrap();
    setsockopt(&ours, SndBuf, &1).unwrap();
    let (mut ours, theirs) = (ours, theirs);
    ours.set_nonblocking(true).unwrap();
    let mut sent = 0;
    loop {
        match ours.write(&[b'a'; PIECE]) {
            Ok(count) => assert_eq!(count, PIECE, "a piece was cut"),
            Err(error) => break assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        sent += 1;
    }
    assert!(sent > 0, "the smallest buffer takes no piece at all");
    drop(theirs);
}

#[test]
fn a_refusal_is_malformed() {
    let (ours, theirs) = pair();
    Answer::begin(ours, Patience::default()).unwrap().refuse().unwrap();
    let text = pieces(&theirs).concat();
    assert_eq!(as_nix_reads(&text), None, "{}", text.escape_ascii());
}

#[test]
fn an_answer_that_was_dropped_is_malformed() {
    let (ours, theirs) = pair();
    drop(Answer::begin(ours, Patience::default()).unwrap());
    assert_eq!(as_nix_reads(&pieces(&theirs).concat()), None);
}

#[test]
fn gives_up_on_a_client_that_does_not_read() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let patience =
        Patience { piece: Duration::from_millis(50), whole: Duration::from_secs(60), root: Duration::ZERO };
    let began = Instant::now();
    let error = Answer::begin(ours, patience).unwrap().complete(roots(20_000).iter()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert!(began.elapsed() < Duration::from_secs(10));
    let text = io::read_to_string(theirs).unwrap();
    assert_eq!(as_nix_reads(text.as_bytes()), None);
}

#[test]
fn gives_up_on_a_client_that_reads_drop_by_drop() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let patience =
        Patience { piece: Duration::from_secs(5), whole: Duration::from_millis(200), root: Duration::ZERO };
    let reader = std::thread::spawn(move || {
        use std::io::Read;
        let (mut text, mut buffer) = (Vec::new(), [0; PIECE]);
        loop {
            let count = theirs.read(&mut buffer).unwrap();
            if count == 0 {
                return text;
            }
            text.extend_from_slice(&buffer[..count]);
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let error = Answer::begin(ours, patience).unwrap().complete(roots(20_000).iter()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(as_nix_reads(&reader.join().unwrap()), None);
}
