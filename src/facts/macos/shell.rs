//! Shells' files in `/etc`, which updates of the system replace.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::reader::Reader;

/// Files that installers add a block to.
const FILES: [&str; 4] = ["/etc/bashrc", "/etc/zshrc", "/etc/zshenv", "/etc/bash.bashrc"];
/// What the official script calls the copy of what was there before it.
const BACKUP: &str = ".backup-before-nix";

/// The first lines of installers' blocks and of ours.
const BLOCKS: [&str; 2] = ["# Nix", "# nix-unroot: Nix"];

/// A file of a shell.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct ShellFile {
    /// The file.
    pub path: PathBuf,
    /// Whether it has an installer's block, between `# Nix` and `# End Nix`, or ours in its place.
    pub has_block: bool,
    /// Whether an installer left a copy of what was there before it.
    pub has_backup: bool,
}

/// Those that exist, or existed for an installer.
pub(crate) fn gather(reader: &Reader<'_>) -> Vec<ShellFile> {
    let file = |path: &&str| {
        let has_backup = reader.machine.exists(format!("{path}{BACKUP}"));
        let text = reader.machine.exists(path).then(|| reader.text(path)).flatten();
        if text.is_none() && !has_backup {
            return None;
        }
        let has_block = text.is_some_and(|text| text.lines().any(|line| BLOCKS.contains(&line.trim())));
        Some(ShellFile { path: path.into(), has_block, has_backup })
    };
    FILES.iter().filter_map(file).collect()
}
