//! Remote builders, from the setting `builders` and the lists that it names.

use std::path::PathBuf;

use super::reader::Reader;
use super::{Builder, ConfFile, nix_conf};

/// In the order Nix tries them. A line is `URI SYSTEMS SSH-KEY JOBS SPEED ...`, with `-` for what is left to a default
/// (`src/libstore/machines.cc`).
pub(crate) fn gather(reader: &Reader<'_>, conf: &[ConfFile]) -> Vec<Builder> {
    let setting = nix_conf::effective(conf, "builders").unwrap_or_else(|| "@/etc/nix/machines".to_owned());
    let mut found = Vec::new();
    for entry in setting.split([';', '\n']).map(str::trim) {
        match entry.strip_prefix('@').map(PathBuf::from) {
            Some(list) => {
                let text = reader.text(&list).unwrap_or_default();
                let lines = text.split([';', '\n']).map(|line| line.split('#').next().unwrap_or_default());
                found.extend(lines.filter_map(|line| builder(line, Some(list.clone()))));
            }
            None => found.extend(builder(entry, None)),
        }
    }
    found
}

fn builder(line: &str, list: Option<PathBuf>) -> Option<Builder> {
    let mut words = line.split_whitespace();
    let uri = words.next()?.to_owned();
    let key = words.nth(1).filter(|key| *key != "-").map(PathBuf::from);
    // A name alone means ssh.
    let over_ssh = uri.starts_with("ssh") || !uri.contains("://");
    Some(Builder { uri, key, list, over_ssh })
}
