//! Named instants at which tests stop a run.
//!
//! With the feature `checkpoints`, `NIX_UNROOT_CHECKPOINT=NAME` in the environment makes the process kill itself with
//! SIGKILL at that instant, as a power cut or the kernel's out-of-memory killer would; `NIX_UNROOT_CHECKPOINT_LOG=FILE`
//! appends the name of each instant that is reached. Without the feature this is nothing at all.

/// Marks the instant `name`: `do:STEP:applied`, `undo:STEP:recorded`, `run:begun`.
#[cfg(feature = "checkpoints")]
pub fn reach(name: &str) {
    use std::io::Write;
    if let Some(path) = std::env::var_os("NIX_UNROOT_CHECKPOINT_LOG") {
        let log = std::fs::OpenOptions::new().append(true).create(true).open(path);
        if let Ok(mut log) = log {
            let _ = writeln!(log, "{name}");
        }
    }
    if std::env::var("NIX_UNROOT_CHECKPOINT").is_ok_and(|wanted| wanted == name) {
        let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
    }
}

/// Marks the instant `name`.
#[cfg(not(feature = "checkpoints"))]
pub fn reach(_name: &str) {}
