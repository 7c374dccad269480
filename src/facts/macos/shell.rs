//! Shells' files in `/etc`, which updates of the system replace.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::reader::Reader;
use crate::platform::block;

/// Files that installers add a block to.
const FILES: [&str; 4] = ["/etc/bashrc", "/etc/zshrc", "/etc/zshenv", "/etc/bash.bashrc"];

/// A file of a shell.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct ShellFile {
    /// The file.
    pub path: PathBuf,
    /// Whether it has an installer's whole block, or ours in its place.
    pub has_block: bool,
    /// Whether an installer left a copy of what was there before it.
    pub has_backup: bool,
}

/// Those that exist, or existed for an installer.
pub(crate) fn gather(reader: &Reader<'_>) -> Vec<ShellFile> {
    let file = |path: &&str| {
        let has_backup = reader.machine.exists(block::copy_of(path.as_ref()));
        let text = reader.machine.exists(path).then(|| reader.text(path)).flatten();
        if text.is_none() && !has_backup {
            return None;
        }
        let has_block = text.is_some_and(|text| {
            block::has_block(&text) || text.lines().any(|line| line.trim() == block::OURS)
        });
        Some(ShellFile { path: path.into(), has_block, has_backup })
    };
    FILES.iter().filter_map(file).collect()
}
