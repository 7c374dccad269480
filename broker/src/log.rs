//! Lines for the log, which is standard error.

use std::fmt::Display;
use std::io::Write;

/// Writes a line in one call, since all builds share the log. A log that nobody reads is no reason to fail.
pub fn line(message: impl Display) {
    let _ = std::io::stderr().write_all(format!("nix-build-broker: {message}\n").as_bytes());
}

/// What the other side named, for a message: one line, whatever it holds, and not without end.
#[must_use]
pub fn shown(text: &[u8]) -> String {
    let cut = &text[..text.len().min(200)];
    String::from_utf8_lossy(cut).escape_debug().to_string()
}
