//! Real trees and real owners: these tests need root.

mod change;
mod hostile;
mod person;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::*;

const NIX: u32 = 61_001;
const NIXBLD: u32 = 61_002;
const NIXBLD_GROUP: u32 = 61_003;
const ALICE: u32 = 61_004;

/// Path -> uid, gid, mode, mtime in nanoseconds.
type Manifest = BTreeMap<Vec<u8>, (u32, u32, u32, i128)>;

impl Default for Progress {
    /// Does not stop.
    fn default() -> Self {
        Self { visited: 0.into(), changed: 0.into(), stop_after: i64::MAX.into() }
    }
}

/// A tree below a temporary directory, with room beside it for what must stay as it is.
struct Case {
    dir: tempfile::TempDir,
    tree: Tree,
}

impl Case {
    fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test changes owners: run it as root");
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir(&root).unwrap();
        Self { dir, tree: Tree { root, skip: Vec::new(), include_root: true } }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.tree.root.join(path)
    }

    fn outside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn record(&self) -> PathBuf {
        self.outside("exceptions")
    }

    /// A file with its directories.
    fn file(&self, path: &str, owner: (u32, u32), mode: u32) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, path.as_os_str().as_bytes()).unwrap();
        own(&path, owner, mode);
        path
    }

    fn reown(&self) -> Outcome {
        self.try_reown(&AtomicBool::new(false), &Progress::default()).unwrap()
    }

    fn try_reown(&self, cancel: &AtomicBool, progress: &Progress) -> Result<Outcome, ReownError> {
        let rule = Rule { from: vec![0, NIXBLD], ..from_root() };
        reown(&self.tree, &rule, &self.record(), progress, cancel)
    }

    fn restore(&self) -> Outcome {
        self.try_restore(&AtomicBool::new(false), &Progress::default()).unwrap()
    }

    fn try_restore(&self, cancel: &AtomicBool, progress: &Progress) -> Result<Outcome, ReownError> {
        let builds = SubidRange::new(872_415_232, 65_536);
        restore(&self.tree, Plain::ROOT, &self.record(), NIX, builds, progress, cancel)
    }

    fn manifest(&self) -> Manifest {
        manifest(&self.tree.root)
    }
}

fn from_root() -> Rule {
    Rule { plain: Plain::ROOT, may_be_open: Vec::new(), from: vec![0], to_uid: NIX, to_gid: NIX }
}

fn own(path: &Path, (uid, gid): (u32, u32), mode: u32) {
    lchown(path, Some(uid), Some(gid)).unwrap();
    if !path.is_symlink() {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn manifest(root: &Path) -> Manifest {
    let mut found = Manifest::new();
    let mut paths = vec![root.to_owned()];
    while let Some(path) = paths.pop() {
        let data = fs::symlink_metadata(&path).unwrap();
        let time = i128::from(data.mtime()) * 1_000_000_000 + i128::from(data.mtime_nsec());
        if data.is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path.as_os_str().as_bytes().to_vec(), (data.uid(), data.gid(), data.mode(), time));
    }
    found
}

/// What a machine's tree has: plain files, build users' leftovers, set-ids, links, users' directories.
fn plant(case: &Case) {
    for path in 0..40 {
        for file in 0..12 {
            case.file(
                &format!("store/{path}-package/bin/file-{file}"),
                (0, 0),
                if file < 3 { 0o555 } else { 0o444 },
            );
        }
        symlink("file-0", case.at(&format!("store/{path}-package/bin/link"))).unwrap();
        fs::create_dir_all(case.at("store/.links")).unwrap();
        let shared = case.at(&format!("store/{path}-package/bin/file-5"));
        fs::hard_link(&shared, case.at(&format!("store/.links/{path}"))).unwrap();
        fs::hard_link(&shared, case.at(&format!("store/{path}-package/same"))).unwrap();
    }
    own(&case.at("store"), (0, NIXBLD_GROUP), 0o1775);
    for file in 0..300 {
        case.file(&format!("store/left/{file}"), (NIXBLD, NIXBLD_GROUP), 0o644);
    }
    own(&case.at("store/left"), (NIXBLD, NIXBLD_GROUP), 0o700);
    case.file("var/group file with % and spaces", (0, 7), 0o640);
    case.file("var/set-ids", (0, 0), 0o6755);
    case.file("per-user/alice/profile", (ALICE, ALICE), 0o644);
    case.file("per-user/alice/roots", (0, 0), 0o644);
    own(&case.at("per-user/alice"), (ALICE, ALICE), 0o755);
}
