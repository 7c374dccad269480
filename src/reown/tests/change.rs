//! What changes hands, what does not, and that both ways end the same however often they are stopped.

use std::os::unix::ffi::OsStringExt;

use super::*;

#[test]
fn what_root_and_build_users_own_changes_and_comes_back() {
    let case = Case::new();
    plant(&case);
    let before = case.manifest();
    let there = case.reown();
    assert!(there.is_complete(), "{there:?}");
    let nix = (NIX, NIX);
    for (path, wanted) in [
        ("", nix),
        ("store", nix),
        ("store/0-package/bin/file-0", nix),
        ("store/0-package/bin/link", nix),
        ("store/.links/0", nix),
        ("store/left", nix),
        ("store/left/7", nix),
        ("var/set-ids", nix),
        ("per-user/alice", (ALICE, ALICE)),
        ("per-user/alice/profile", (ALICE, ALICE)),
        ("per-user/alice/roots", (0, 0)),
    ] {
        assert_eq!(owner(&case.at(path)), wanted, "{path}");
    }
    assert_eq!(there.closed_dirs.paths, [PathBuf::from("per-user/alice")]);
    assert_eq!(there.special_modes.paths, [PathBuf::from("var/set-ids")]);
    // The store, the directory and its 300 files, the file of another group, the set-ids file.
    assert_eq!(there.exceptions, 1 + 301 + 1 + 1);
    for (path, (_, _, mode, time)) in case.manifest() {
        let was = before[&path];
        let taken = if path.ends_with(b"set-ids") { inode::SET_IDS } else { 0 };
        assert_eq!((mode, time), (was.2 & !taken, was.3), "{}", String::from_utf8_lossy(&path));
    }
    assert_eq!(case.reown().changed, 0, "nothing to do the second time");

    let back = case.restore();
    assert!(back.is_complete(), "{back:?}");
    assert_eq!(back.changed, there.changed);
    assert_eq!(case.manifest(), before);
    assert_eq!(case.restore().changed, 0);
    assert_eq!(case.manifest(), before);
}

/// Long after the tree changed hands, somebody gave parts of it back to root: those are found, go to the owner, and only they go back.
#[test]
fn strays_are_found_and_only_they_come_back() {
    let case = Case::new();
    plant(&case);
    let _ = case.reown();
    let rule = Rule { from: vec![0, NIXBLD], record_all: true, ..from_root() };
    let cancel = AtomicBool::new(false);
    let strays = || strays(&case.tree, &rule, &cancel).unwrap();
    assert_eq!(strays(), Listed::default());
    let stray =
        ["store/0-package/bin/file-0", "store/1-package", "store/2-package/bin/file-5", "var/set-ids"];
    for path in stray {
        lchown(case.at(path), Some(0), Some(7)).unwrap();
    }
    lchown(case.at("store/3-package"), Some(NIXBLD), Some(0)).unwrap();
    let drifted = case.manifest();
    let found = strays();
    let mut paths = found.paths;
    paths.sort();
    paths.dedup();
    // The file with three names, all of them, the others with one each.
    assert_eq!(found.count, 7, "{paths:?}");
    assert!(stray.iter().all(|path| paths.contains(&PathBuf::from(path))), "{paths:?}");
    assert_eq!(case.manifest(), drifted, "looking changes nothing");
    let record = case.outside("strays");
    let done = reown(&case.tree, &rule, &record, &Progress::default(), &cancel).unwrap();
    assert_eq!((done.changed, done.is_complete()), (5, true), "{done:?}");
    assert_eq!(strays(), Listed::default());
    for _ in 0..2 {
        let progress = Progress::default();
        let back = restore(&case.tree, Unrecorded::Stays, &record, NIX, None, &progress, &cancel).unwrap();
        assert!(back.is_complete(), "{back:?}");
        assert_eq!(case.manifest(), drifted);
    }
}

#[test]
fn what_came_since_becomes_roots() {
    let case = Case::new();
    case.file("store/old", (0, 0), 0o444);
    let _ = case.reown();
    case.file("store/new/file", (NIX, NIX), 0o444);
    case.file("store/failed-build/file", (872_415_232 + 5, 872_415_232), 0o600);
    case.file("store/bob", (ALICE + 1, 0), 0o600);
    let back = case.restore();
    for path in ["store/old", "store/new/file", "store/failed-build/file"] {
        assert_eq!(owner(&case.at(path)), (0, 0), "{path}");
    }
    assert_eq!(owner(&case.at("store/bob")), (ALICE + 1, 0));
    assert_eq!(back.left_alone, 1);
}

#[test]
fn set_ids_and_capabilities_come_back_to_the_same_bytes_only() {
    let case = Case::new();
    let (same, changed) =
        (case.file("same", (0, 0), 0o4755), case.file("changed", (0, NIXBLD_GROUP), 0o6755));
    let capable = case.file("capable", (0, 0), 0o755);
    // CAP_NET_RAW, permitted and effective, as VFS_CAP_REVISION_2 (capabilities(7)).
    let value = [1_u8, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    rustix::fs::setxattr(&capable, "security.capability", &value, rustix::fs::XattrFlags::empty()).unwrap();
    let _ = case.reown();
    assert_eq!((mode(&same), mode(&changed)), (0o755, 0o755));
    fs::write(&changed, b"something else").unwrap();
    let back = case.restore();
    assert_eq!((mode(&same), mode(&changed)), (0o4755, 0o755));
    assert_eq!((owner(&same), owner(&changed)), ((0, 0), (0, NIXBLD_GROUP)));
    let mut found = [0_u8; 64];
    let length = rustix::fs::getxattr(&capable, "security.capability", &mut found[..]).unwrap();
    assert_eq!(found[..length], value);
    assert_eq!(back.special_modes.paths, [PathBuf::from("changed")]);
}

/// Reading a sparse one of 8 TiB would take hours, on either way.
#[test]
fn a_file_too_large_to_be_read_loses_its_set_ids() {
    let case = Case::new();
    let (huge, grown) = (case.file("huge", (0, 0), 0o4755), case.file("grown", (0, 0), 0o4755));
    let resize =
        |path: &Path, size| fs::File::options().write(true).open(path).unwrap().set_len(size).unwrap();
    resize(&huge, 8 << 40);
    own(&huge, (0, 0), 0o4755);
    assert_eq!(case.reown().special_modes.count, 2);
    resize(&grown, 8 << 40);
    let stopped = case.try_restore(&AtomicBool::new(true), &Progress::default());
    assert!(matches!(stopped, Err(ReownError::Cancelled)), "{stopped:?}");
    assert_eq!(owner(&grown).0, NIX, "it is stopped before the first");
    let mut back = case.restore();
    back.special_modes.paths.sort();
    assert_eq!(back.special_modes.paths, ["grown", "huge"].map(PathBuf::from));
    assert_eq!((mode(&huge), mode(&grown), owner(&huge), owner(&grown)), (0o755, 0o755, (0, 0), (0, 0)));
}

#[test]
fn a_file_of_another_size_is_not_read_again() {
    let case = Case::new();
    let file = case.file("file", (0, 0), 0o4755);
    let _ = case.reown();
    // The record of another content is right about the digest, so that only the size tells.
    let size = fs::metadata(&file).unwrap().len();
    let mut recorded = Vec::new();
    record::read(&case.record(), |exception| {
        recorded.push(exception);
        Ok(())
    })
    .unwrap();
    let write = |size| {
        fs::remove_file(case.record()).unwrap();
        let special = recorded[0].special.clone().map(|special| record::Special { size, ..special });
        let exception = record::Exception { special, ..recorded[0].clone() };
        record::Writer::open(&case.record()).unwrap().append([&exception].into_iter()).unwrap();
    };
    write(Some(size + 1));
    assert_eq!(case.restore().special_modes.count, 1);
    // A record of an older version has none.
    write(None);
    assert_eq!((case.restore().special_modes.count, mode(&file)), (0, 0o4755));
}

#[test]
fn stopped_again_and_again_it_ends_as_if_never_stopped() {
    let case = Case::new();
    plant(&case);
    let before = case.manifest();
    let _ = case.reown();
    let reowned = case.manifest();
    let _ = case.restore();
    assert_eq!(case.manifest(), before);
    fs::remove_file(case.record()).unwrap();

    let stops = until_done(|cancel, progress| case.try_reown(cancel, progress));
    assert_eq!(case.manifest(), reowned, "after {stops} stops");
    let stops_back = until_done(|cancel, progress| case.try_restore(cancel, progress));
    assert_eq!(case.manifest(), before, "after {stops_back} stops");
    println!("stopped {stops} times on the way there and {stops_back} times on the way back");
    assert!(stops > 20 && stops_back > 20);
}

/// Runs `attempt` until it ends, and stops each at an entry a little behind where it stopped the one before.
fn until_done(attempt: impl Fn(&AtomicBool, &Progress) -> Result<Outcome, ReownError>) -> u32 {
    for stops in 0.. {
        let progress = Progress { stop_after: (37 * i64::from(stops)).into(), ..Progress::default() };
        match attempt(&AtomicBool::new(false), &progress) {
            Ok(_) => return stops,
            Err(ReownError::Cancelled) => {}
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("the range above has no end")
}

#[test]
fn what_is_skipped_stays_and_so_does_the_root_unless_included() {
    let mut case = Case::new();
    case.file("store/kept/file", (0, 0), 0o644);
    case.file("kept/file", (0, 0), 0o644);
    case.file("store/file", (0, 0), 0o644);
    case.tree.skip = vec!["store/kept".into(), "store/file".into()];
    case.tree.include_root = false;
    let _ = case.reown();
    for (path, wanted) in [
        ("", 0),
        ("store", NIX),
        ("store/kept", 0),
        ("store/kept/file", 0),
        ("store/file", 0),
        ("kept/file", NIX),
    ] {
        assert_eq!(owner(&case.at(path)).0, wanted, "{path}");
    }
}

#[test]
fn a_rule_that_takes_from_whom_it_gives_to_is_refused() {
    let case = Case::new();
    for from in [vec![], vec![0, NIX]] {
        let rule = Rule { from, ..from_root() };
        let result = reown(&case.tree, &rule, &case.record(), &Progress::default(), &AtomicBool::new(false));
        assert!(matches!(result, Err(ReownError::Rule { .. })));
    }
    assert!(case.try_restore(&AtomicBool::new(false), &Progress::default()).is_err(), "without a record");
}

#[test]
fn strange_names_and_strange_files_change_like_others() {
    use nix::sys::stat::{Mode, SFlag, mknod};
    let case = Case::new();
    let mut paths: Vec<PathBuf> = [&b"new\nline"[..], b"\xff\xfe", b"-rf", b" "]
        .iter()
        .map(|name| case.tree.root.join(OsString::from_vec(name.to_vec())))
        .collect();
    for path in &paths {
        fs::write(path, b"").unwrap();
        own(path, (0, 5), 0o600);
    }
    for (name, kind) in [("fifo", SFlag::S_IFIFO), ("device", SFlag::S_IFCHR), ("socket", SFlag::S_IFSOCK)] {
        mknod(&case.at(name), kind, Mode::from_bits_truncate(0o600), nix::sys::stat::makedev(1, 3)).unwrap();
        paths.push(case.at(name));
    }
    let before = case.manifest();
    assert!(case.reown().is_complete());
    for path in &paths {
        assert_eq!(owner(path), (NIX, NIX), "{}", path.display());
    }
    assert!(case.restore().is_complete());
    assert_eq!(case.manifest(), before);
}
