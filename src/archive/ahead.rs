//! Reading ahead in a thread of its own: decompression and writing files take about as long as each other.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Pieces that wait to be read at most.
const WAITING: usize = 16;

type Piece = io::Result<Vec<u8>>;

/// Calls `work` with a reader of what `source` gives, and reads that ahead meanwhile.
pub(super) fn read<T>(mut source: impl Read + Send, work: impl FnOnce(Ahead) -> T) -> T {
    let (sender, pieces) = sync_channel(WAITING);
    thread::scope(|scope| {
        scope.spawn(move || send_all(&mut source, &sender));
        // What `work` leaves is not waited for: with the reader, the other end of the channel goes.
        work(Ahead { pieces, piece: Vec::new(), at: 0 })
    })
}

/// Sends what there is, an error as the last of it.
fn send_all(source: &mut impl Read, sender: &SyncSender<Piece>) {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = source.by_ref().take(PIECE as u64).read_to_end(&mut piece);
        let is_last = read.is_err() || piece.is_empty();
        // What came before an error counts.
        if !piece.is_empty() && sender.send(Ok(piece)).is_err() {
            return;
        }
        if let Err(error) = read {
            let _ = sender.send(Err(error));
        }
        if is_last {
            return;
        }
    }
}

/// The reader.
#[derive(Debug)]
pub(super) struct Ahead {
    pieces: Receiver<Piece>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            // Nobody sends any more: that was all.
            let Ok(piece) = self.pieces.recv() else { return Ok(0) };
            (self.piece, self.at) = (piece?, 0);
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_in_order_and_an_error_comes_last() {
        let all: Vec<u8> = (0..3 * PIECE + 7).map(|number| number as u8).collect();
        let mut seen = Vec::new();
        read(all.as_slice(), |mut ahead| ahead.read_to_end(&mut seen)).unwrap();
        assert_eq!(seen, all);

        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        seen.clear();
        let error = read(all.chain(Broken), |mut ahead| ahead.read_to_end(&mut seen)).unwrap_err();
        assert_eq!((error.to_string().as_str(), seen.len()), ("broken", all.len()));
    }

    #[test]
    fn a_reader_that_stops_ends_the_thread() {
        assert_eq!(read(io::repeat(1), |mut ahead| ahead.read(&mut [0; 4]).unwrap()), 4);
    }
}
