//! `/etc/subuid` and `/etc/subgid`.

use super::reader::Reader;
use crate::types::{SubidEntry, parse_subid_file};

pub(crate) fn gather(reader: &Reader<'_>, path: &str) -> Vec<SubidEntry> {
    parse_subid_file(&reader.text(path).unwrap_or_default())
}
