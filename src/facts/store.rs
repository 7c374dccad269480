//! The store and its state directory.

use std::path::Path;

use super::Store;
use super::reader::Reader;
use crate::platform::paths::NIX_STATE;
use crate::system::access_list::ACCESS_LIST;
use crate::system::kernel;
use crate::types::STORE_DIR;

pub(crate) fn gather(reader: &Reader<'_>) -> Option<Store> {
    let owner = reader.path_owner(STORE_DIR)?;
    let space = space(reader, STORE_DIR);
    if space.is_none() {
        reader.note(STORE_DIR, "the file system does not tell its free space");
    }
    let (free_bytes, used_inodes) = space.unwrap_or_default();
    Some(Store {
        path: STORE_DIR.into(),
        state: NIX_STATE.into(),
        uid: owner.uid,
        gid: owner.gid,
        mode: owner.mode,
        free_bytes,
        used_inodes,
        access_lists: access_lists(reader),
    })
}

/// A file system without them answers otherwise than with "none here".
fn access_lists(reader: &Reader<'_>) -> bool {
    reader.machine.host(Path::new(STORE_DIR)).is_ok_and(|path| xattr::get(path, ACCESS_LIST).is_ok())
}

/// Bytes free where this tool will keep its journal and backups, for root.
pub(crate) fn free_for_backups(reader: &Reader<'_>) -> Option<u64> {
    let directory = ["/var/lib/nix-unroot", "/var/lib", "/var", "/"];
    let nearest = directory.into_iter().find(|path| reader.machine.exists(path))?;
    space(reader, nearest).map(|(free_bytes, _)| free_bytes)
}

/// Free bytes and used inodes of the file system that `path` lies on.
fn space(reader: &Reader<'_>, path: &str) -> Option<(u64, u64)> {
    let room = kernel::room(&reader.machine.host(Path::new(path)).ok()?)?;
    Some((room.free_bytes, room.used_inodes))
}
