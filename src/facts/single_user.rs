//! The person whose store it is, where no daemon is installed.

use std::path::Path;

use super::reader::Reader;
use super::{Flavour, NixBinary, SingleUser, Store};
use crate::platform::paths::NIX_STATE;
use crate::types::StorePath;

/// Directories that hold one for each user, relative to the state directory.
const PER_USER: [&str; 2] = ["profiles/per-user", "gcroots/per-user"];

pub(crate) fn gather(
    reader: &Reader<'_>,
    flavour: &Flavour,
    store: Option<&Store>,
    nix: &[NixBinary],
) -> Option<SingleUser> {
    let (Flavour::OfficialSingleUser { owner: uid }, Some(store)) = (flavour, store) else { return None };
    Some(SingleUser {
        uid: *uid,
        gid: store.gid,
        name: reader.accounts.users.iter().find(|user| user.uid == *uid).map(|user| user.name.clone()),
        own_directories: PER_USER
            .into_iter()
            .flat_map(|parent| own_directories(reader, parent, *uid))
            .collect(),
        nix: nix.iter().find_map(|nix| StorePath::containing(&nix.real_path)),
    })
}

/// Directories in `parent` that are named after the person. Others that the person owns are only there because one person
/// owned all.
fn own_directories(reader: &Reader<'_>, parent: &str, uid: u32) -> Vec<std::path::PathBuf> {
    let is_own = |path: &std::path::PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        let is_directory = reader.machine.lstat(path).is_ok_and(|metadata| metadata.is_dir());
        is_directory && name.and_then(|name| reader.accounts.uid(name)) == Some(uid)
    };
    let found = reader.list(Path::new(NIX_STATE).join(parent)).into_iter().filter(is_own);
    found.filter_map(|path| path.strip_prefix(NIX_STATE).ok().map(Path::to_owned)).collect()
}
