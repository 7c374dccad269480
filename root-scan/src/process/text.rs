//! Searches a file of any length for store paths in bounded memory.

use std::os::fd::AsFd;

use nix::errno::Errno;

use crate::doubt::Doubt;
use crate::store_path::{MAX_MATCH, find_all};
use crate::sys;

const BUFFER: usize = 128 * 1024;

/// Why a search stopped.
#[derive(Debug)]
pub enum Stop {
    /// Reading failed.
    Read(Errno),
    /// There is too much.
    Doubt(Doubt),
}

/// A buffer that is used again for file after file.
#[derive(Debug)]
pub struct Searcher(Vec<u8>);

impl Searcher {
    pub fn new() -> Self {
        Self(vec![0; BUFFER])
    }

    /// Hands the base name of every store path in the rest of `file` to `add`.
    pub fn search(
        &mut self,
        file: impl AsFd,
        add: impl FnMut(&[u8]) -> Result<(), Doubt>,
    ) -> Result<(), Stop> {
        self.search_with(|buffer| sys::read(&file, buffer), add)
    }

    /// Hands every line of the rest of `file` to `each`, without its end. One that is longer than the buffer comes in pieces, none of
    /// which cuts a store path that the next one does not have whole.
    pub fn lines(
        &mut self,
        file: impl AsFd,
        each: impl FnMut(&[u8]) -> Result<(), Doubt>,
    ) -> Result<(), Stop> {
        self.lines_with(|buffer| sys::read(&file, buffer), each)
    }

    fn lines_with(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> nix::Result<usize>,
        mut each: impl FnMut(&[u8]) -> Result<(), Doubt>,
    ) -> Result<(), Stop> {
        let mut kept = 0;
        loop {
            let count = read(&mut self.0[kept..]).map_err(Stop::Read)?;
            let length = kept + count;
            let text = &self.0[..length];
            let mut lines = text.split(|byte| *byte == b'\n');
            let last = lines.next_back().unwrap_or_default();
            lines.try_for_each(&mut each).map_err(Stop::Doubt)?;
            kept = last.len();
            if count == 0 || kept == self.0.len() {
                each(last).map_err(Stop::Doubt)?;
                kept = kept.min(MAX_MATCH);
            }
            if count == 0 {
                return Ok(());
            }
            self.0.copy_within(length - kept..length, 0);
        }
    }

    fn search_with(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> nix::Result<usize>,
        mut add: impl FnMut(&[u8]) -> Result<(), Doubt>,
    ) -> Result<(), Stop> {
        let mut kept = 0;
        loop {
            let count = read(&mut self.0[kept..]).map_err(Stop::Read)?;
            let text = &self.0[..kept + count];
            for (base, end) in find_all(text) {
                // At the end of the text the name may go on in what is not read yet.
                if end < text.len() || count == 0 {
                    add(base).map_err(Stop::Doubt)?;
                }
            }
            if count == 0 {
                return Ok(());
            }
            let length = kept + count;
            kept = length.min(MAX_MATCH);
            self.0.copy_within(length - kept..length, 0);
        }
    }
}

/// What is found in `text` when it is read in pieces of `size` bytes.
#[cfg(any(test, fuzzing))]
pub fn found_in_pieces(text: &[u8], size: usize) -> Vec<Vec<u8>> {
    use std::path::PathBuf;

    use crate::roots::Roots;

    let mut rest = text;
    let read = |buffer: &mut [u8]| {
        let count = size.min(rest.len()).min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        rest = &rest[count..];
        Ok(count)
    };
    let mut roots = Roots::new();
    Searcher::new().search_with(read, |base| roots.add(base, PathBuf::new)).expect("nothing fails here");
    let mut found: Vec<_> = roots.paths().map(|path| path.base_name().to_vec()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::roots::Roots;

    /// Every way to cut the text into reads must find the same paths and no other.
    #[test]
    fn finds_across_every_cut() {
        let bases: Vec<String> =
            "abc".chars().map(|c| format!("{}-{}", c.to_string().repeat(32), "n".repeat(100))).collect();
        let mut text = format!("/nix/store/{}", bases[0]);
        text.push_str(&format!("\0{}X=/nix/store/{} /nix/store/{}", "y".repeat(300), bases[1], bases[2]));
        for first in 1..text.len() {
            for step in [1, 7, 255, 256, 257, 4096] {
                let mut rest = text.as_bytes();
                let mut size = first;
                let mut roots = Roots::new();
                let read = |buffer: &mut [u8]| {
                    let count = size.min(rest.len()).min(buffer.len());
                    buffer[..count].copy_from_slice(&rest[..count]);
                    rest = &rest[count..];
                    size = step;
                    Ok(count)
                };
                Searcher::new().search_with(read, |base| roots.add(base, PathBuf::new)).unwrap();
                let mut found: Vec<_> = roots.paths().map(|path| path.base_name().to_vec()).collect();
                found.sort();
                assert_eq!(
                    found,
                    bases.iter().map(|base| base.as_bytes()).collect::<Vec<_>>(),
                    "{first} {step}"
                );
            }
        }
    }

    /// However it is cut into reads, every line comes once and whole.
    #[test]
    fn lines_are_whole() {
        let text = format!("a\n\n{}\nlast", "b".repeat(3000));
        for size in [1, 2, 7, 4096] {
            let mut rest = text.as_bytes();
            let read = |buffer: &mut [u8]| {
                let count = rest.len().min(buffer.len()).min(size);
                buffer[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                Ok(count)
            };
            let mut lines = Vec::new();
            let each = |line: &[u8]| {
                lines.push(String::from_utf8(line.to_vec()).unwrap());
                Ok(())
            };
            Searcher::new().lines_with(read, each).unwrap();
            assert_eq!(lines, text.split('\n').collect::<Vec<_>>(), "{size}");
        }
    }

    /// A store path stands whole in one of the pieces of a line that is longer than the buffer.
    #[test]
    fn a_long_line_hides_nothing() {
        let base = format!("{}-{}", "a".repeat(32), "n".repeat(100));
        for before in BUFFER - 200..BUFFER + 10 {
            let text = format!("{}/nix/store/{base} {}", "x".repeat(before), "y".repeat(BUFFER));
            let mut rest = text.as_bytes();
            let read = |buffer: &mut [u8]| {
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                rest = &rest[count..];
                Ok(count)
            };
            let mut found = false;
            let each = |line: &[u8]| {
                found |= find_all(line).any(|(found, _)| found == base.as_bytes());
                Ok(())
            };
            Searcher::new().lines_with(read, each).unwrap();
            assert!(found, "{before}");
        }
    }

    #[test]
    fn holds_no_more_than_its_buffer() {
        let mut left = 40 * BUFFER;
        let read = |buffer: &mut [u8]| {
            let count = buffer.len().min(left);
            assert!(buffer.len() >= BUFFER - MAX_MATCH);
            buffer[..count].fill(b'x');
            left -= count;
            Ok(count)
        };
        let mut roots = Roots::new();
        Searcher::new().search_with(read, |base| roots.add(base, PathBuf::new)).unwrap();
        assert_eq!((roots.paths().len(), left), (0, 0));
    }
}
