//! Trees made to do harm: nothing outside changes, nothing hangs, nothing overflows.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, RenameFlags};

use super::*;

#[test]
fn an_inode_with_a_name_outside_is_reported_and_not_changed() {
    let case = Case::new();
    let shadow = case.outside("shadow");
    fs::write(&shadow, b"root:*").unwrap();
    fs::create_dir(case.at("d")).unwrap();
    for name in ["d/one", "d/two"] {
        fs::hard_link(&shadow, case.at(name)).unwrap();
    }
    case.file("shared", (0, 0), 0o444);
    fs::hard_link(case.at("shared"), case.at("d/shared")).unwrap();
    let mut there = case.reown();
    there.foreign_links.paths.sort();
    assert_eq!(there.foreign_links.paths, [PathBuf::from("d/one"), PathBuf::from("d/two")]);
    assert!(!there.is_complete());
    assert_eq!(owner(&shadow), (0, 0));
    assert_eq!(owner(&case.at("shared")), (NIX, NIX));
}

#[test]
fn links_to_the_outside_are_changed_themselves() {
    let case = Case::new();
    let victim = case.outside("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), b"").unwrap();
    let before = manifest(&victim);
    symlink(&victim, case.at("directory")).unwrap();
    symlink(victim.join("file"), case.at("file")).unwrap();
    assert_eq!(case.reown().changed, 3);
    assert_eq!(owner(&case.at("directory")), (NIX, NIX));
    assert_eq!(manifest(&victim), before);
    assert_eq!(case.restore().changed, 3);
    assert_eq!(manifest(&victim), before);
}

#[test]
fn a_recorded_path_that_now_leads_outside_is_not_followed() {
    let case = Case::new();
    case.file("d/file", (0, NIXBLD_GROUP), 0o640);
    let _ = case.reown();
    let victim = case.outside("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), b"").unwrap();
    own(&victim.join("file"), (NIX, NIX), 0o600);
    let before = manifest(&victim);
    fs::rename(case.at("d"), case.at("e")).unwrap();
    // Relative: an absolute link may be refused for a mount on its way, which is not what is tested.
    symlink("../victim", case.at("d")).unwrap();
    let _ = case.restore();
    assert_eq!(manifest(&victim), before);
    assert_eq!(owner(&case.at("e/file")), (0, 0));
}

#[test]
fn a_tree_of_five_thousand_levels_is_walked_to_its_end_and_back() {
    let case = Case::new();
    let levels = 5_000;
    let open = |dir: &OwnedFd, name: &str| {
        rustix::fs::openat(dir, name, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap()
    };
    let mut dir: OwnedFd = fs::File::open(&case.tree.root).unwrap().into();
    for _ in 0..levels {
        // Two a level, so that the walk has to come back to where it closed the directory.
        for name in ["deep-down-here", "side"] {
            rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)).unwrap();
        }
        dir = open(&dir, "deep-down-here");
    }
    rustix::fs::openat(&dir, "end", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600)).unwrap();
    rustix::fs::chownat(
        &dir,
        "end",
        None,
        Some(rustix::fs::Gid::from_raw(NIXBLD_GROUP)),
        rustix::fs::AtFlags::empty(),
    )
    .unwrap();
    let end = || {
        rustix::fs::statat(&dir, "end", rustix::fs::AtFlags::empty()).map(|s| (s.st_uid, s.st_gid)).unwrap()
    };
    assert_eq!(case.reown().changed, 2 * levels + 2);
    assert_eq!(end(), (NIX, NIX));
    assert_eq!(case.restore().changed, 2 * levels + 2);
    assert_eq!(end(), (0, NIXBLD_GROUP));
    // The temporary directory's own clean-up goes by recursion.
    let removed = std::process::Command::new("rm").arg("-rf").arg(&case.tree.root).status().unwrap();
    assert!(removed.success());
}

#[test]
fn what_lies_too_deep_to_be_recorded_is_refused_with_all_below_it() {
    let case = Case::new();
    let name = "n".repeat(255);
    let mut dir: OwnedFd = fs::File::open(&case.tree.root).unwrap().into();
    let mut dirs = Vec::new();
    let user = Some(rustix::fs::Uid::from_raw(NIXBLD));
    for _ in 0..520 {
        rustix::fs::mkdirat(&dir, name.as_str(), Mode::from_raw_mode(0o755)).unwrap();
        dir = rustix::fs::openat(&dir, name.as_str(), OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty())
            .unwrap();
        rustix::fs::fchown(&dir, user, None).unwrap();
        dirs.push(dir.try_clone().unwrap());
    }
    rustix::fs::openat(&dir, "plain", OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600)).unwrap();
    let owner_of = |dir: &OwnedFd| rustix::fs::fstat(dir).unwrap().st_uid;
    let plain = || rustix::fs::statat(&dir, "plain", rustix::fs::AtFlags::empty()).unwrap().st_uid;
    let there = case.reown();
    // 512 names with what stands between them are one byte short of the limit.
    assert_eq!((there.too_long.count, there.is_complete()), (1, false), "{there:?}");
    assert_eq!(there.too_long.paths, [PathBuf::from([name.as_str(); 4].join("/"))]);
    let owners: Vec<_> = dirs.iter().map(owner_of).collect();
    assert!(owners[..512].iter().all(|uid| *uid == NIX) && owners[512..].iter().all(|uid| *uid == NIXBLD));
    assert_eq!(plain(), 0);
    assert!(case.restore().is_complete());
    assert!(dirs.iter().all(|dir| owner_of(dir) == NIXBLD) && plain() == 0);
    let removed = std::process::Command::new("rm").arg("-rf").arg(&case.tree.root).status().unwrap();
    assert!(removed.success());
}

#[test]
fn a_directory_with_very_many_subdirectories_is_read_in_parts() {
    let case = Case::new();
    let many = 3 * walk::SUBDIRS_AT_ONCE as u64 / 64;
    for number in 0..many {
        fs::create_dir(case.at(&format!("{number:050}"))).unwrap();
    }
    assert_eq!(case.reown().changed, many + 1);
    assert_eq!(case.restore().changed, many + 1);
}

#[test]
fn what_is_mounted_in_the_tree_stays() {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let case = Case::new();
    for name in ["tmpfs", "bind"] {
        fs::create_dir(case.at(name)).unwrap();
    }
    case.file("file", (0, 0), 0o444);
    fs::create_dir(case.outside("elsewhere")).unwrap();
    fs::write(case.outside("elsewhere/file"), b"").unwrap();
    let none = None::<&str>;
    let mounts = [
        (Some(PathBuf::from("tmpfs")), "tmpfs", Some("tmpfs"), MsFlags::empty()),
        (Some(case.outside("elsewhere")), "bind", None, MsFlags::MS_BIND),
        (Some(case.outside("elsewhere/file")), "file", None, MsFlags::MS_BIND),
    ];
    // A thread has its mounts to itself once it has left the process's namespace; those that it starts inherit it.
    let outcome = std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS | nix::sched::CloneFlags::CLONE_NEWNS)
                .unwrap();
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            for (source, target, kind, flags) in &mounts {
                mount(source.as_deref(), &case.at(target), *kind, *flags, none).unwrap();
            }
            let outcome = case.reown();
            let inside = owner(&case.at("tmpfs"));
            for (_, target, _, _) in &mounts {
                umount2(&case.at(target), MntFlags::empty()).unwrap();
            }
            (outcome, inside)
        });
        run.join().unwrap()
    });
    let (mut outcome, inside) = outcome;
    outcome.other_mounts.paths.sort();
    assert_eq!(outcome.other_mounts.paths, ["bind", "file", "tmpfs"].map(PathBuf::from));
    assert_eq!((inside, owner(&case.outside("elsewhere/file"))), ((0, 0), (0, 0)));
}

#[test]
fn an_immutable_file_is_reported_and_the_rest_goes_on() {
    let case = Case::new();
    let fixed = case.file("fixed", (0, 0), 0o644);
    case.file("other", (0, 0), 0o644);
    let chattr = |flag: &str| std::process::Command::new("chattr").arg(flag).arg(&fixed).status().unwrap();
    assert!(chattr("+i").success(), "the temporary directory's file system has no immutable files");
    let there = case.reown();
    assert!(chattr("-i").success());
    assert_eq!(there.refused.paths, [PathBuf::from("fixed")]);
    assert_eq!((owner(&fixed).0, owner(&case.at("other")).0), (0, NIX));
}

/// Somebody exchanges directories with links to a victim, renames names of foreign inodes about, and unlinks and links them,
/// while the tree goes back and forth.
#[test]
fn a_racing_owner_changes_nothing_outside() {
    let case = Case::new();
    let victim = case.outside("victim");
    for directory in 0..20 {
        let path = victim.join(format!("d{directory}"));
        fs::create_dir_all(&path).unwrap();
        for file in 0..20 {
            fs::write(path.join(format!("f{file}")), b"").unwrap();
            own(&path.join(format!("f{file}")), if file % 2 == 0 { (NIX, NIX) } else { (0, 0) }, 0o600);
        }
    }
    let before = manifest(&victim);
    for directory in 0..20 {
        for file in 0..20 {
            case.file(&format!("swap/d{directory}/f{file}"), (0, 0), 0o644);
        }
        symlink(format!("../../victim/d{directory}"), case.at(&format!("swap/l{directory}"))).unwrap();
    }
    let (ended, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut rounds = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&case, &victim, &ended, &swaps));
        let mut failed = None;
        while Instant::now() < deadline && failed.is_none() {
            // Four passes may all meet it at work; that is no error.
            let there = case.try_reown(&AtomicBool::new(false), &Progress::default()).map(drop);
            let back = case.try_restore(&AtomicBool::new(false), &Progress::default()).map(drop);
            failed = there.and(back).err();
            rounds += 1;
        }
        // Before anything can panic: the scope waits for the swapper.
        ended.store(true, Ordering::Relaxed);
        assert!(failed.is_none(), "round {rounds}: {failed:?}");
    });
    println!("{} swaps in {rounds} rounds", swaps.load(Ordering::Relaxed));
    assert!(swaps.load(Ordering::Relaxed) > 1_000 && rounds > 0);
    assert_eq!(manifest(&victim), before);
}

fn swap(case: &Case, victim: &Path, ended: &AtomicBool, swaps: &AtomicU64) {
    let dir: OwnedFd = fs::File::open(case.at("swap")).unwrap().into();
    for round in 0_u64.. {
        if ended.load(Ordering::Relaxed) {
            return;
        }
        let number = round % 20;
        let (real, link) = (format!("d{number}"), format!("l{number}"));
        rustix::fs::renameat_with(&dir, &real, &dir, &link, RenameFlags::EXCHANGE).unwrap();
        // A name of a foreign inode that comes, moves and goes: the inode has one or two names by turns.
        let (planted, moved) = (case.at(&format!("swap/x{number}")), case.at(&format!("swap/y{number}")));
        fs::hard_link(victim.join(format!("d{number}/f{}", round / 20 % 20)), &planted).unwrap();
        fs::rename(&planted, &moved).unwrap();
        rustix::fs::renameat_with(&dir, &real, &dir, &link, RenameFlags::EXCHANGE).unwrap();
        fs::remove_file(&moved).unwrap();
        swaps.fetch_add(4, Ordering::Relaxed);
    }
}

/// The race for one inode (its name outside goes after it was met inside, or its name inside moves ahead of the walk) is too narrow to hit at
/// will. So the pass is made to believe that it began long ago: then everything was changed since.
#[test]
fn what_changed_since_the_pass_began_is_not_taken_where_others_can_write() {
    let case = Case::new();
    case.file("open/alone", (0, 0), 0o644);
    own(&case.at("open"), (0, 0), 0o777);
    case.file("closed/alone", (0, 0), 0o644);
    case.file("closed/one", (0, 0), 0o644);
    fs::hard_link(case.at("closed/one"), case.at("closed/two")).unwrap();
    let rule = from_root();
    let policy = Policy::Reown { rule: &rule, log: Mutex::new(Log::open(&case.record()).unwrap()) };
    let (progress, cancel) = (Progress::default(), AtomicBool::new(false));
    let job = Job {
        tree: &case.tree,
        policy: &policy,
        record: &case.record(),
        progress: &progress,
        cancel: &cancel,
    };
    let (mut outcome, _) = one_pass(&job, (0, 0), HashSet::new()).unwrap();
    outcome.unsettled.paths.sort();
    assert_eq!(outcome.unsettled.paths, ["closed/one", "closed/two", "open/alone"].map(PathBuf::from));
    assert_eq!(owner(&case.at("closed/alone")), (NIX, NIX));
    for path in ["closed/one", "open/alone"] {
        assert_eq!(owner(&case.at(path)), (0, 0), "{path}");
    }
    assert!(case.reown().is_complete());
    assert_eq!(owner(&case.at("open/alone")), (NIX, NIX));
}
