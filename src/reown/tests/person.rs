//! A tree that was a person's, who may have prepared it.

use std::process::{Command, Stdio};

use super::*;

const PERSON: (u32, u32) = (ALICE, ALICE);

fn try_from_alice(case: &Case) -> Result<Outcome, ReownError> {
    let rule = Rule {
        plain: Plain { uid: ALICE, gid: ALICE },
        may_be_open: vec!["per-user".into()],
        from: vec![0, ALICE],
        ..from_root()
    };
    reown(&case.tree, &rule, &case.record(), &Progress::default(), &AtomicBool::new(false))
}

fn back_to_alice(case: &Case) -> Outcome {
    let plain = Plain { uid: ALICE, gid: ALICE };
    let (progress, cancel) = (Progress::default(), AtomicBool::new(false));
    restore(&case.tree, plain, &case.record(), NIX, None, &progress, &cancel).unwrap()
}

fn store(case: &Case) {
    for path in 0..20 {
        for file in 0..5 {
            case.file(&format!("{path}-package/bin/{file}"), PERSON, 0o444);
        }
        own(&case.at(&format!("{path}-package/bin")), PERSON, 0o555);
        own(&case.at(&format!("{path}-package")), PERSON, 0o555);
    }
}

#[test]
fn it_comes_back_and_only_what_was_not_the_persons_is_recorded() {
    let case = Case::new();
    store(&case);
    case.file("by-root", (0, 0), 0o644);
    case.file("of-a-group", (ALICE, 7), 0o644);
    case.file("bobs", (ALICE + 1, 7), 0o644);
    case.file("set-id", PERSON, 0o4755);
    let before = case.manifest();
    let outcome = try_from_alice(&case).unwrap();
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!(outcome.exceptions, 4, "and the root of the tree");
    assert_eq!(owner(&case.at("0-package/bin/0")), (NIX, NIX));
    assert_eq!(owner(&case.at("bobs")), (ALICE + 1, 7));
    case.file("since", (NIX, NIX), 0o444);
    assert!(back_to_alice(&case).is_complete());
    assert_eq!(owner(&case.at("since")), PERSON, "what was added is the person's");
    fs::remove_file(case.at("since")).unwrap();
    assert!(case.manifest().keys().eq(before.keys()));
    for (path, was) in before.into_iter().skip(1) {
        assert_eq!(case.manifest()[&path], was, "{}", String::from_utf8_lossy(&path));
    }
}

#[test]
fn what_others_could_still_write_to_is_named() {
    let case = Case::new();
    store(&case);
    case.file("0-package/open", PERSON, 0o666);
    case.file("per-user/x", PERSON, 0o644);
    own(&case.at("per-user"), PERSON, 0o1777);
    own(&case.at("1-package"), PERSON, 0o775);
    symlink("anywhere", case.at("link")).unwrap();
    own(&case.at("link"), PERSON, 0);
    let mut outcome = try_from_alice(&case).unwrap();
    outcome.open.paths.sort();
    assert_eq!(outcome.open.paths, ["0-package/open", "1-package"].map(PathBuf::from));
    assert!(!outcome.is_complete());
    // The same in a tree of root's is as it always was.
    let case = Case::new();
    case.file("open", (0, 0), 0o666);
    assert!(case.reown().is_complete());
}

#[test]
fn a_link_from_the_persons_home_is_named_and_stays_theirs() {
    let case = Case::new();
    store(&case);
    let home = case.outside("letter");
    fs::write(&home, "dear").unwrap();
    own(&home, PERSON, 0o600);
    fs::hard_link(&home, case.at("letter")).unwrap();
    let outcome = try_from_alice(&case).unwrap();
    assert_eq!(outcome.foreign_links.paths, [PathBuf::from("letter")]);
    assert_eq!(owner(&home), PERSON);
}

/// A person who makes files as fast as possible in the directories that are being taken: in the end either nothing of the tree is
/// that person's, or the outcome says so.
#[test]
fn nothing_is_left_to_a_person_who_goes_on_writing() {
    use std::os::unix::process::CommandExt;
    let case = Case::new();
    for path in ["", "../"] {
        let path = case.at(path);
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    for path in 0..300 {
        case.file(&format!("{path}-package/file"), PERSON, 0o444);
        own(&case.at(&format!("{path}-package")), PERSON, 0o755);
    }
    let busy = "cd $1; n=0; while :; do n=$((n+1)); for d in *-package; do : >$d/$n; done 2>/dev/null; done";
    let mut writer = Command::new("sh")
        .args(["-c", busy, "sh"])
        .arg(&case.tree.root)
        .stderr(Stdio::null())
        .uid(ALICE)
        .gid(ALICE)
        .spawn()
        .unwrap();
    let start = Instant::now();
    while manifest(&case.tree.root).len() < 1000 {
        assert!(start.elapsed() < Duration::from_secs(60), "alice makes no files");
        std::thread::sleep(Duration::from_millis(20));
    }
    let outcome = try_from_alice(&case);
    writer.kill().unwrap();
    writer.wait().unwrap();
    let outcome = outcome.unwrap();
    let left = manifest(&case.tree.root).into_values().filter(|(uid, ..)| *uid == ALICE).count();
    assert!(left == 0 || !outcome.is_complete(), "{left} files are left to alice: {outcome:?}");
    assert!(outcome.is_complete(), "{outcome:?}");
}
