//! The block that installers of Nix put into a shell's file, and the copy of the file that one of them keeps.
//!
//! All of them write lines from `# Nix` to `# End Nix` (`shell_source_lines` of the official script, `PROFILE_NIX_FILE_SHELL`
//! of nix-installer); on Macs nix-installer's block in zshenv begins in other words (`configure_remote_building.rs`). The official script keeps the file from before beside it, and that copy then stands in the way of the
//! next installation.

use std::path::{Path, PathBuf};

/// The first line of ours, where it stands in place of an installer's.
pub const OURS: &str = "# nix-unroot: Nix";
const FIRST_LINES: [&str; 2] = ["# Nix", "# Set up Nix only on SSH connections"];
const LAST_LINE: &str = "# End Nix";

/// Where the official script puts its copy of a shell's file.
pub fn copy_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".backup-before-nix");
    name.into()
}

/// Whether a text has a whole block of an installer's.
pub fn has_block(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim_end);
    lines.any(|line| FIRST_LINES.contains(&line)) && lines.any(|line| line == LAST_LINE)
}

/// A text without its blocks, and without the blank lines that the installers put around one. A block without an end stays:
/// nobody knows where it ends.
pub fn without_blocks(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((start, end)) = block(rest) {
        let before = &rest[..start];
        kept.push_str(before.strip_suffix("\n\n").map_or(before, |shorter| &before[..=shorter.len()]));
        rest = rest[end..].strip_prefix('\n').unwrap_or(&rest[end..]);
        if kept == "\n" {
            kept.clear();
        }
    }
    kept + rest
}

/// Where the first block begins and ends, in bytes.
fn block(text: &str) -> Option<(usize, usize)> {
    let mut at = 0;
    let mut start = None;
    for line in text.split_inclusive('\n') {
        let end = at + line.len();
        match (start, line.trim_end()) {
            (None, line) if FIRST_LINES.contains(&line) => start = Some(at),
            (Some(start), LAST_LINE) => return Some((start, end)),
            _ => {}
        }
        at = end;
    }
    None
}
