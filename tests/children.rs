//! What the hidden subcommands hand on to the programs that they become.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// A Nix that is asked for its version may be anybody's: what this process holds open, as the lock of a run, it must not get.
#[test]
fn a_program_that_is_asked_for_its_version_gets_no_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    let held = File::create(dir.path().join("lock")).unwrap();
    fcntl(&held, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let program = dir.path().join("nix");
    let fd = held.as_raw_fd();
    fs::write(&program, format!("#!/bin/sh\n[ -e /proc/self/fd/{fd} ] && echo held || echo free\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let said = |command: &mut Command| String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert_eq!(said(&mut Command::new(&program)), "held\n", "a child as such gets it");
    let asked =
        said(Command::new(env!("CARGO_BIN_EXE_nix-unroot")).arg("internal-run-version").arg(&program));
    assert_eq!(asked, "free\n");
}
