//! Going back on a full disk, with the room that is kept for the journal.

use super::*;
use crate::system::small_disk::SmallDisk;

/// With everything on a small disk, and something that fills it up but for what is kept for the journal.
fn on_a_small_disk(work: impl FnOnce(&mut Bench, &dyn Fn(&Bench))) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let disk = SmallDisk::new(24);
    let dir = tempfile::tempdir_in(disk.path()).unwrap();
    let journal = Journal::open(&dir.path().join("state/journal.sqlite")).unwrap();
    let fill = |bench: &Bench| {
        fs::write(bench.file("filler"), vec![0; 24 << 20]).unwrap_err();
    };
    work(&mut Bench { dir, journal }, &fill);
}

/// Also for a file that is larger than what recording happens to give back.
#[test]
fn going_back_has_room_on_a_full_disk() {
    on_a_small_disk(|bench, fill| {
        let large = vec![b'x'; 3 << 20];
        fs::write(bench.file("a"), &large).unwrap();
        let plan = bench.plan(&["a"]);
        bench.apply(false, &plan);
        fill(bench);
        let run = bench.journal.current().unwrap().unwrap();
        let (seen, ended) = bench.run(false, |engine| engine.roll_back(&run));
        assert_eq!((seen.as_str(), ended), ("a:undo", Ending::Undone));
        assert!(fs::read(bench.file("a")).unwrap() == large);
    });
}

#[test]
fn a_choice_has_room_on_a_full_disk() {
    on_a_small_disk(|bench, fill| {
        let plan = bench.plan(&["a"]);
        bench.apply(false, &plan);
        fs::write(bench.file("a"), "theirs").unwrap();
        fill(bench);
        let run = bench.journal.current().unwrap().unwrap();
        let (seen, ended) = bench.run(false, |engine| {
            let found = engine.conflicts(&run)?;
            engine.choose(&run, &[(found[0].clone(), Keep::Ours)])?;
            engine.roll_back(&run)
        });
        assert_eq!((seen.as_str(), ended), ("a:undo", Ending::Undone));
    });
}
