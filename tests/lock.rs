//! The lock of a run. It is inherited by children, also by those of other tests, so this has a process of its own.

use std::fs;
use std::process::Command;

use nix_unroot::journal::{Lock, LockError};

#[test]
fn a_second_run_is_refused_and_told_who_holds_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal.sqlite");
    assert!(!Lock::is_held(&journal));
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "asking makes no file");
    let lock = Lock::take(&journal).unwrap();
    assert!(matches!(Lock::take(&journal), Err(LockError::Held { .. })));
    assert!(Lock::is_held(&journal));
    drop(lock);
    let lock = Lock::take(&journal).unwrap();

    // A child that outlives a killed run holds its lock.
    let mut child = Command::new("sleep").arg("30").spawn().unwrap();
    drop(lock);
    let error = Lock::take(&journal).unwrap_err().to_string();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(error.contains(&format!("(process {} (sleep) holds ", child.id())), "{error}");
    Lock::take(&journal).unwrap();
}
