//! Places that a run writes to, and that cannot be written to.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::reader::Reader;
use crate::platform::paths::{LIBEXEC_DIR, NIX_CONF, PROGRAM, STATE_DIR};

/// Those that lie on a file system that is mounted read-only, by the nearest directory that exists.
pub(crate) fn gather(reader: &Reader<'_>) -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = [PROGRAM, LIBEXEC_DIR, NIX_CONF, STATE_DIR]
        .iter()
        .filter_map(|place| Path::new(place).ancestors().skip(1).find(|above| reader.machine.exists(above)))
        .filter(|place| {
            let found = reader.machine.host(place).ok().and_then(|host| statvfs(&host).ok());
            found.is_some_and(|found| found.flags().contains(FsFlags::ST_RDONLY))
        })
        .map(Path::to_owned)
        .collect();
    places.sort();
    places.dedup();
    places
}
