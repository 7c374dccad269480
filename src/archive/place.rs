//! Names in an archive, which are hostile input: where each one belongs, and whether a link stays in the store.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::types::{STORE_DIR, StorePath};

/// The longest name that is taken, in bytes (`PATH_MAX`).
const LONGEST: usize = 4096;
/// The deepest one, in components.
const DEEPEST: usize = 128;

/// Where an entry belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `TOP/.reginfo`: what the store's database is to know of the paths.
    Registration,
    /// `TOP/install`, which names Nix's own store path. It is read, never run.
    Installer,
    /// In the store: a path, and what lies below it (nothing for the path itself).
    Store(StorePath, PathBuf),
    /// Something that is not needed.
    Other,
}

/// Why a name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadName {
    #[error("is an absolute path")]
    Absolute,
    #[error("leads upwards")]
    Upwards,
    #[error("is too long or too deep")]
    TooLong,
    #[error("is empty or has a zero byte")]
    Malformed,
    #[error("lies in the store, but not in a store path")]
    NotAStorePath,
}

/// Where the entry `name` belongs.
pub(super) fn place(name: &[u8]) -> Result<Place, BadName> {
    if name.is_empty() || name.contains(&0) {
        return Err(BadName::Malformed);
    }
    let mut parts: Vec<&OsStr> = Vec::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(part) => parts.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err(BadName::Upwards),
            Component::RootDir | Component::Prefix(_) => return Err(BadName::Absolute),
        }
    }
    if name.len() > LONGEST || parts.len() > DEEPEST {
        return Err(BadName::TooLong);
    }
    let below_top = parts.get(1..).unwrap_or_default();
    Ok(match below_top {
        [name] if *name == ".reginfo" => Place::Registration,
        [name] if *name == "install" => Place::Installer,
        [store, path, rest @ ..] if *store == "store" => {
            let path = path.to_str().and_then(StorePath::from_base_name).ok_or(BadName::NotAStorePath)?;
            Place::Store(path, rest.iter().collect())
        }
        _ => Place::Other,
    })
}

/// Whether the link `rest` of `path` leads to something in the store, read as text: nothing is followed.
pub(super) fn stays_in_store(path: &StorePath, rest: &Path, target: &[u8]) -> bool {
    if target.is_empty() || target.len() > LONGEST || target.contains(&0) {
        return false;
    }
    let target = Path::new(OsStr::from_bytes(target));
    let (mut at, relative) = match target.strip_prefix(STORE_DIR) {
        Ok(below) => (PathBuf::new(), below),
        Err(_) if target.is_absolute() => return false,
        Err(_) => (Path::new(path.base_name()).join(rest), target),
    };
    // A relative link starts from the directory that it lies in.
    if !target.is_absolute() {
        at.pop();
    }
    for component in relative.components() {
        match component {
            Component::Normal(part) => at.push(part),
            Component::ParentDir if !at.pop() => return false,
            Component::ParentDir | Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    at.components()
        .next()
        .and_then(|first| first.as_os_str().to_str())
        .is_some_and(|first| StorePath::from_base_name(first).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nix() -> StorePath {
        StorePath::from_base_name(&format!("{}-nix-2.34.8", "0".repeat(32))).unwrap()
    }

    #[test]
    fn every_name_has_one_place_or_none() {
        let base = nix().base_name().to_owned();
        let in_store = |rest: &str| Ok(Place::Store(nix(), rest.into()));
        let rows: &[(String, Result<Place, BadName>)] = &[
            ("top/.reginfo".into(), Ok(Place::Registration)),
            ("./top/.reginfo".into(), Ok(Place::Registration)),
            ("top/install".into(), Ok(Place::Installer)),
            ("top/install-multi-user".into(), Ok(Place::Other)),
            ("top/".into(), Ok(Place::Other)),
            ("top/store".into(), Ok(Place::Other)),
            ("install".into(), Ok(Place::Other)),
            (format!("top/store/{base}"), in_store("")),
            (format!("top/store/{base}/"), in_store("")),
            (format!("top/store/{base}/bin//./nix"), in_store("bin/nix")),
            (format!("/nix/store/{base}"), Err(BadName::Absolute)),
            ("top/../../etc/passwd".into(), Err(BadName::Upwards)),
            (format!("top/store/{base}/../../x"), Err(BadName::Upwards)),
            ("top/store/.links/x".into(), Err(BadName::NotAStorePath)),
            ("top/store/x".into(), Err(BadName::NotAStorePath)),
            (String::new(), Err(BadName::Malformed)),
            ("top/a\0b".into(), Err(BadName::Malformed)),
            (format!("top/{}", "a".repeat(5000)), Err(BadName::TooLong)),
            (format!("top/{}", "a/".repeat(200)), Err(BadName::TooLong)),
        ];
        for (name, expected) in rows {
            assert_eq!(place(name.as_bytes()), *expected, "{name:?}");
        }
    }

    #[test]
    fn links_out_of_the_store_are_none() {
        let base = nix().base_name().to_owned();
        let rows = [
            ("bin/nix-store", "nix", true),
            ("bin/x", "../lib/y", true),
            ("bin/x", &format!("../../{base}/y"), true),
            ("bin/x", &format!("/nix/store/{base}"), true),
            ("bin/x", &format!("/nix/store/./{base}/../{base}/a"), true),
            ("", "../x", false),
            ("bin/x", "../..", false),
            ("bin/x", "../../../etc/passwd", false),
            ("bin/x", "../../.links/y", false),
            ("bin/x", "/etc/passwd", false),
            ("bin/x", "/nix/store", false),
            ("bin/x", "/nix/store/..", false),
            ("bin/x", &format!("/nix/store/{base}/../../var"), false),
            ("bin/x", "/nix/storage/y", false),
            ("bin/x", "", false),
            ("bin/x", "a\0b", false),
        ];
        for (rest, target, stays) in rows {
            assert_eq!(
                stays_in_store(&nix(), Path::new(rest), target.as_bytes()),
                stays,
                "{rest:?} -> {target:?}"
            );
        }
    }
}
