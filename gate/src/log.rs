//! Lines for the log, which is standard error.
//!
//! All connections share it, so a line is one `write`: pieces of two of them would mix otherwise.

use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, Instant};

/// Writes a line. A log that nobody reads is no reason to fail.
pub fn line(message: impl Display) {
    let _ = std::io::stderr().write_all(format!("nix-daemon-gate: {message}\n").as_bytes());
}

/// How often a [`Throttle`] lets something through.
const INTERVAL: Duration = Duration::from_secs(1);

/// Keeps a line that somebody can cause without end from filling the log: one a second, with the number of those left out.
#[derive(Debug, Default)]
pub struct Throttle {
    last: Option<Instant>,
    left_out: usize,
}

impl Throttle {
    /// Writes the line, or counts it.
    pub fn line(&mut self, message: impl Display) {
        if let Some(left_out) = self.pass(Instant::now()) {
            match left_out {
                0 => line(message),
                _ => line(format_args!("{message} (and {left_out} lines like this before it)")),
            }
        }
    }

    /// The number of those left out before this one, if this one may pass.
    fn pass(&mut self, now: Instant) -> Option<usize> {
        if self.last.is_some_and(|last| now < last + INTERVAL) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_and_the_count_of_the_rest() {
        let (start, mut throttle) = (Instant::now(), Throttle::default());
        let passed = [0, 1, 999, 1000, 1001, 5000].map(|ms| throttle.pass(start + Duration::from_millis(ms)));
        assert_eq!(passed, [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
