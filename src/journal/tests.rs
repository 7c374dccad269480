//! What the journal keeps, and what it refuses.

use super::copy::Sum;
use super::*;
#[cfg(target_os = "linux")]
use crate::system::small_disk::SmallDisk;

fn journal() -> (tempfile::TempDir, Journal) {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&dir.path().join("state/journal.sqlite")).unwrap();
    (dir, journal)
}

#[test]
fn a_step_is_recorded_with_what_it_captured() {
    let (_dir, mut journal) = journal();
    let run = journal.begin("migrate", "{}", &["one", "two"]).unwrap();
    journal.begin_step(run, 1, "{\"was\":1}").unwrap();
    journal.set_step(run, 0, StepState::Skipped, None).unwrap();
    let steps = journal.steps(run).unwrap();
    assert_eq!((steps[0].state, steps[1].state), (StepState::Skipped, StepState::Doing));
    assert_eq!(steps[1].captured.as_deref(), Some("{\"was\":1}"));
    assert_eq!(journal.current().unwrap().unwrap().id, run);
    journal.set_run(run, RunState::Undone).unwrap();
    assert!(journal.current().unwrap().is_none());
    assert!(journal.runs().unwrap()[0].finished.is_some());
}

#[test]
fn a_newer_journal_is_refused_by_name() {
    let (dir, journal) = journal();
    journal.connection.pragma_update(None, "user_version", 99).unwrap();
    drop(journal);
    let error = Journal::open(&dir.path().join("state/journal.sqlite")).unwrap_err().to_string();
    assert!(error.contains("version 99") && error.contains("newer nix-unroot"), "{error}");
    let path = dir.path().join("state/journal.sqlite");
    assert!(matches!(restore_from_copies(&path), Err(JournalError::Newer { found: 99, .. })));
    assert!(path.exists(), "it is still the newer one's");
}

#[test]
fn an_unknown_state_is_refused_not_skipped() {
    let (_dir, mut journal) = journal();
    let run = journal.begin("migrate", "{}", &["one"]).unwrap();
    journal.connection.execute("UPDATE steps SET state = 'frobbed'", []).unwrap();
    let error = journal.steps(run).unwrap_err().to_string();
    assert!(error.contains("frobbed"), "{error}");
}

#[test]
fn every_write_is_durable() {
    let (_dir, journal) = journal();
    let pragma = |name: &str| -> String {
        journal
            .connection
            .pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0))
            .map(|value| format!("{value:?}"))
            .unwrap()
    };
    assert_eq!(pragma("synchronous"), "Integer(2)", "FULL");
    assert_eq!(pragma("journal_mode"), "Text(\"wal\")");
}

#[test]
fn others_cannot_read_it() {
    let (dir, _journal) = journal();
    let mode = fs::metadata(dir.path().join("state")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

/// A run in the middle of its second step, and all of its steps as they are recorded.
fn begun() -> (tempfile::TempDir, Journal, Vec<StepRecord>) {
    let (dir, mut journal) = journal();
    let run = journal.begin("migrate", "{}", &["one", "two", "three"]).unwrap();
    journal.begin_step(run, 0, "{\"was\":1}").unwrap();
    journal.set_step(run, 0, StepState::Done, None).unwrap();
    journal.begin_step(run, 1, "{\"was\":2}").unwrap();
    let steps = journal.steps(run).unwrap();
    (dir, journal, steps)
}

fn what_counts(steps: &[StepRecord]) -> Vec<(String, StepState, Option<String>)> {
    steps.iter().map(|step| (step.id.clone(), step.state, step.captured.clone())).collect()
}

/// Whatever byte of the database or its log is another: it is found, or nothing is lost by it; and the copy has all.
#[test]
fn damage_is_found_and_the_copy_gives_everything_back() {
    let (dir, journal, steps) = begun();
    let names = ["journal.sqlite", "journal.sqlite-wal", "run-1.record"];
    // With the connection open, the log has not been folded in: as after a kill.
    let state = dir.path().join("state");
    let log = fs::read(state.join(names[1])).unwrap();
    let database = fs::read(state.join(names[0])).unwrap();
    let copy = fs::read(state.join(names[2])).unwrap();
    drop(journal);
    let folded = fs::read(state.join(names[0])).unwrap();
    let mut found = [0, 0];
    for (which, whole) in [&log, &folded].into_iter().enumerate() {
        for at in (0..whole.len()).step_by(whole.len() / 150) {
            let machine = tempfile::tempdir().unwrap();
            let path = machine.path().join(names[0]);
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            if which == 0 {
                fs::write(machine.path().join(names[1]), damaged).unwrap();
                fs::write(&path, &database).unwrap();
            } else {
                fs::write(&path, damaged).unwrap();
            }
            fs::write(machine.path().join(names[2]), &copy).unwrap();
            match Journal::open(&path) {
                // A version that is another than it was; SQLite cannot tell.
                Err(JournalError::Newer { .. }) => fs::remove_file(&path).unwrap(),
                Err(error) => {
                    assert!(
                        matches!(error, JournalError::Damaged { .. } | JournalError::Unknown { .. }),
                        "{error}"
                    );
                    found[which] += 1;
                }
                Ok(journal) => {
                    assert_eq!(what_counts(&journal.steps(1).unwrap()), what_counts(&steps), "byte {at}");
                    continue;
                }
            }
            restore_from_copies(&path).unwrap();
            let journal = Journal::open(&path).unwrap();
            assert_eq!(what_counts(&journal.steps(1).unwrap()), what_counts(&steps), "byte {at}");
            assert_eq!(journal.current().unwrap().unwrap().plan, "{}");
            journal.set_step(1, 1, StepState::Done, None).unwrap();
            drop(journal);
            assert_eq!(Journal::open(&path).unwrap().steps(1).unwrap()[1].state, StepState::Done);
        }
    }
    assert!(found.iter().all(|&count| count > 5), "{found:?}");
}

#[test]
fn a_journal_that_lost_its_run_is_damaged() {
    let (dir, journal, steps) = begun();
    let path = dir.path().join("state/journal.sqlite");
    drop(journal);
    fs::remove_file(&path).unwrap();
    let error = Journal::open(&path).unwrap_err().to_string();
    assert!(error.contains("lacks run 1") && error.contains("rollback --from-copy"), "{error}");
    restore_from_copies(&path).unwrap();
    assert_eq!(what_counts(&Journal::open(&path).unwrap().steps(1).unwrap()), what_counts(&steps));
    let kept = fs::read_dir(path.parent().unwrap()).unwrap().flatten();
    assert_eq!(kept.filter(|entry| entry.file_name().to_string_lossy().contains("damaged")).count(), 1);
}

/// Whether a run died before the journal got a change, or its log lost it: what the copy has did happen, or may have.
#[test]
fn a_last_change_that_only_the_copy_has_is_made_up_for() {
    let (dir, journal, _) = begun();
    let path = dir.path().join("state/journal.sqlite");
    let (mut copy, _) = Copy::open(&Copy::path(&path, 1)).unwrap();
    let change =
        |index| Event::Step { index, state: StepState::Doing, captured: Some("7".to_owned()), error: None };
    drop(journal);
    copy.append(&change(2)).unwrap();
    let step = Journal::open(&path).unwrap().steps(1).unwrap().remove(2);
    assert_eq!((step.state, step.captured.as_deref()), (StepState::Doing, Some("7")));
    // Two changes cannot be missing by a death.
    let (mut copy, _) = Copy::open(&Copy::path(&path, 1)).unwrap();
    copy.append(&change(0)).unwrap();
    copy.append(&change(1)).unwrap();
    assert!(matches!(Journal::open(&path), Err(JournalError::Damaged { .. })));
}

/// A disk that fills up, say, while the run goes on: it still records why it stops.
#[test]
fn a_database_that_fails_misses_one_change_at_most() {
    let (dir, journal, _) = begun();
    let path = dir.path().join("state/journal.sqlite");
    let other = Connection::open(&path).unwrap();
    let fails =
        |fails: bool| other.execute_batch(if fails { "BEGIN IMMEDIATE" } else { "ROLLBACK" }).unwrap();
    journal.connection.busy_timeout(std::time::Duration::ZERO).unwrap();
    let states = |journal: &Journal| -> Vec<_> {
        journal.steps(1).unwrap().into_iter().map(|step| (step.state, step.error)).collect()
    };
    fails(true);
    assert!(journal.set_step(1, 1, StepState::Done, None).is_err());
    assert_eq!(states(&journal)[1].0, StepState::Done, "what is certain to come is shown");
    assert!(journal.set_step(1, 1, StepState::Doing, Some("it failed")).is_err());
    assert!(journal.set_run(1, RunState::Undoing).is_err());
    fails(false);
    // What was missed comes first, then what is new.
    journal.begin_step(1, 2, "{}").unwrap();
    let expected = [(StepState::Done, None), (StepState::Done, None), (StepState::Doing, None)];
    assert_eq!(states(&journal), expected);
    fails(true);
    assert!(journal.set_run(1, RunState::Undoing).is_err());
    assert_eq!(journal.current().unwrap().unwrap().state, RunState::Undoing);
    fails(false);
    journal.set_run(1, RunState::Applying).unwrap();
    fails(true);
    assert!(journal.set_step(1, 2, StepState::Done, None).is_err());
    assert!(journal.set_run(1, RunState::Undoing).is_err());
    fails(false);
    drop((journal, other));
    let journal = Journal::open(&path).unwrap();
    assert_eq!(states(&journal)[2].0, StepState::Done, "the copy has it");
    assert_eq!(journal.current().unwrap().unwrap().state, RunState::Applying);
}

#[test]
fn a_damaged_copy_is_told_from_a_damaged_journal() {
    let (dir, journal, _) = begun();
    let path = dir.path().join("state/journal.sqlite");
    let copy = Copy::path(&path, 1);
    let mut bytes = fs::read(&copy).unwrap();
    bytes[100] ^= 1;
    fs::write(&copy, &bytes).unwrap();
    drop(journal);
    let error = Journal::open(&path).unwrap_err();
    assert!(matches!(error, JournalError::Copy { .. }), "{error}");
    assert!(restore_from_copies(&path).is_err(), "nothing is made of a damaged copy");
    assert!(path.exists());
    // The journal itself is whole, so without the copy it makes another.
    fs::rename(&copy, dir.path().join("damaged")).unwrap();
    Journal::open(&path).unwrap();
    assert_eq!(Sum::of(&Copy::read(&copy).unwrap()).unwrap().steps[0].1, StepState::Done);
    Journal::open(&path).unwrap();
}

#[test]
fn room_is_kept_from_the_beginning_to_the_end_of_a_run() {
    let (dir, journal, _) = begun();
    let reserve = dir.path().join("state/journal.reserve");
    assert_eq!(fs::metadata(&reserve).unwrap().len(), reserve::SIZE);
    assert!(journal.reserve.release());
    assert!(fs::metadata(&reserve).unwrap().len() < reserve::SIZE);
    drop(journal);
    let journal = Journal::open(&dir.path().join("state/journal.sqlite")).unwrap();
    assert_eq!(fs::metadata(&reserve).unwrap().len(), reserve::SIZE, "the next command takes it again");
    journal.set_run(1, RunState::Undone).unwrap();
    assert!(!reserve.exists());
}

#[test]
fn room_is_kept_while_any_run_is_left_and_not_longer() {
    let (dir, mut journal, _) = begun();
    let (path, reserve) = (dir.path().join("state/journal.sqlite"), dir.path().join("state/journal.reserve"));
    journal.set_run(1, RunState::Applied).unwrap();
    let above = journal.begin("repair", "{}", &["one"]).unwrap();
    journal.set_run(above, RunState::Undone).unwrap();
    assert!(reserve.exists(), "run 1 can be undone, too");
    journal.set_run(1, RunState::Undone).unwrap();
    assert!(!reserve.exists());
    // As a run leaves it that died at its very end.
    fs::write(&reserve, "room").unwrap();
    drop(journal);
    Journal::open(&path).unwrap();
    assert!(!reserve.exists());
}

/// A run that dies while SQLite makes its file leaves nothing that anybody has to clear away.
#[test]
fn the_beginning_of_a_journal_is_no_journal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal.sqlite");
    fs::write(&path, "").unwrap();
    assert!(Journal::open_existing(&path).unwrap().is_none());
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    drop(connection);
    assert!(Journal::open_existing(&path).unwrap().is_none());
    // With the log of its tables, which a power cut tore, and without its index.
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("BEGIN; CREATE TABLE t (a);").unwrap();
    fs::write(path.with_file_name("journal.sqlite-wal"), [7; 99]).unwrap();
    drop(connection);
    let _ = fs::remove_file(path.with_file_name("journal.sqlite-shm"));
    fs::write(path.with_file_name("journal.sqlite-wal"), [7; 99]).unwrap();
    assert!(Journal::open_existing(&path).unwrap().is_none());
    Journal::open(&path).unwrap();
    assert!(Journal::open_existing(&path).unwrap().is_some());
    // With a copy of a run beside it, it is one that was emptied.
    let (dir, journal, _) = begun();
    let path = dir.path().join("state/journal.sqlite");
    drop(journal);
    fs::write(&path, "").unwrap();
    let error = Journal::open_existing(&path).unwrap().unwrap().current().unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
}

/// A part of a copy would pass for all that ever happened, and a journal made of it would undo only that.
#[test]
fn a_copy_that_was_not_finished_is_none() {
    let (dir, journal, steps) = begun();
    let path = dir.path().join("state/journal.sqlite");
    let copy = Copy::path(&path, 1);
    drop(journal);
    // As the making of a new copy leaves it when it dies in the middle.
    let line = fs::read_to_string(&copy).unwrap().lines().next().unwrap().to_owned() + "\n";
    fs::remove_file(&copy).unwrap();
    fs::write(path.with_file_name("run-1.record-new"), line).unwrap();
    let journal = Journal::open(&path).unwrap();
    assert_eq!(what_counts(&journal.steps(1).unwrap()), what_counts(&steps));
    drop(journal);
    restore_from_copies(&path).unwrap();
    assert_eq!(what_counts(&Journal::open(&path).unwrap().steps(1).unwrap()), what_counts(&steps));
    assert!(!path.with_file_name("run-1.record-new").exists());
}

/// SQLite removes the index of its log before the log when it closes a database, and a power cut may take it, too.
#[test]
fn a_log_without_its_index_is_read_and_left_alone() {
    let (dir, journal, steps) = begun();
    let (state, copy) = (dir.path().join("state"), tempfile::tempdir().unwrap());
    for name in ["journal.sqlite", "journal.sqlite-wal"] {
        fs::copy(state.join(name), copy.path().join(name)).unwrap();
    }
    drop(journal);
    let path = copy.path().join("journal.sqlite");
    let files = || {
        let mut all: Vec<_> = fs::read_dir(copy.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(&path).unwrap()))
            .collect();
        all.sort();
        all
    };
    let before = files();
    for _ in 0..2 {
        let journal = Journal::open_existing(&path).unwrap().unwrap();
        assert_eq!(what_counts(&journal.steps(1).unwrap()), what_counts(&steps));
        drop(journal);
        assert!(files() == before, "looking changed something");
    }
}

/// The copy comes before the database, so it meets a full disk first.
#[cfg(target_os = "linux")]
#[test]
fn the_copy_has_its_part_of_the_room() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let disk = SmallDisk::new(16);
    let mut journal = Journal::open(&disk.path().join("state/journal.sqlite")).unwrap();
    let run = journal.begin("migrate", "{}", &["one"]).unwrap();
    fs::write(disk.path().join("filler"), vec![0; 16 << 20]).unwrap_err();
    for _ in 0..40 {
        journal.set_step(run, 0, StepState::Doing, Some(&"x".repeat(9000))).unwrap();
    }
}

/// What fails for another reason is not tried again and again, and takes nothing of the room.
#[cfg(target_os = "linux")]
#[test]
fn room_is_given_back_to_what_lacks_it() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let full = || anyhow::anyhow!("useradd: No space left on device");
    let silent = || anyhow::anyhow!("useradd failed");
    let rows: [(bool, &dyn Fn() -> anyhow::Error, u64); 4] =
        [(false, &silent, 1), (false, &full, 1), (true, &silent, 2), (true, &full, 9)];
    for (is_full, fail, times) in rows {
        let disk = SmallDisk::new(32);
        let mut journal = Journal::open(&disk.path().join("state/journal.sqlite")).unwrap();
        journal.begin("migrate", "{}", &["one"]).unwrap();
        if is_full {
            fs::write(disk.path().join("filler"), vec![0; 32 << 20]).unwrap_err();
        }
        let mut done = 0;
        let failed = journal.with_room(|| -> anyhow::Result<()> {
            done += 1;
            Err(fail())
        });
        assert!(failed.is_err());
        assert_eq!(done, times, "{is_full} {}", fail());
        let left = fs::metadata(disk.path().join("state/journal.reserve")).unwrap().len();
        assert_eq!(left, reserve::SIZE - (times - 1) * reserve::PORTION);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn without_room_no_run_begins() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let disk = SmallDisk::new(4);
    let mut journal = Journal::open(&disk.path().join("state/journal.sqlite")).unwrap();
    let begun = journal.begin("migrate", "{}", &["one"]);
    assert!(matches!(begun, Err(JournalError::NoRoom { .. })), "{begun:?}");
    assert!(journal.runs().unwrap().is_empty());
}
