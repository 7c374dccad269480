//! Named instants at which tests stop a run.
//!
//! With the feature `checkpoints`, `NIX_UNROOT_CHECKPOINT=NAME` in the environment makes the process kill itself with
//! SIGKILL at that instant, as a power cut or the kernel's out-of-memory killer would; `NIX_UNROOT_CHECKPOINT_LOG=FILE`
//! appends the name of each instant that is reached. Without the feature this is nothing at all.
//!
//! The engine names instants around what it records and what a step does: `do:STEP:applied`, `undo:STEP:recorded`,
//! `run:begun`. What a step does of several parts has instants inside: `do:STEP:1:file-written`, `do:STEP:2:command-inside`,
//! counted by kind.

#[cfg(feature = "checkpoints")]
mod real {
    use std::collections::BTreeMap;
    use std::io::Write;
    use std::sync::{Mutex, PoisonError};
    use std::time::Duration;

    use nix::sys::signal::{Signal, kill, killpg};
    use nix::unistd::{Pid, getpid};

    /// The step that is being done or undone, and how often each kind of instant was reached inside of it.
    static STEP: Mutex<(String, BTreeMap<&'static str, u32>)> = Mutex::new((String::new(), BTreeMap::new()));

    /// Marks the instant `name`.
    pub fn reach(name: &str) {
        if wanted(name) {
            die();
        }
    }

    /// From here on, instants inside belong to `step`: `do:STEP` or `undo:STEP`.
    pub fn enter(step: &str) {
        *STEP.lock().unwrap_or_else(PoisonError::into_inner) = (step.to_owned(), BTreeMap::new());
    }

    /// Marks an instant of this kind inside the step.
    pub fn inside(kind: &'static str) {
        if let Some(name) = name(kind) {
            reach(&name);
        }
    }

    /// Marks two instants while a command runs whose process group is `leader`: one kills both, `NIX_UNROOT_CHECKPOINT_DELAY`
    /// milliseconds after its start; the other kills us alone.
    pub fn inside_command(leader: u32) {
        if name("command-inside").is_some_and(|name| wanted(&name)) {
            let delay = std::env::var("NIX_UNROOT_CHECKPOINT_DELAY").ok().and_then(|text| text.parse().ok());
            std::thread::sleep(Duration::from_millis(delay.unwrap_or(0)));
            let _ = killpg(Pid::from_raw(leader.cast_signed()), Signal::SIGKILL);
            die();
        }
        inside("command-alone");
    }

    fn name(kind: &'static str) -> Option<String> {
        let mut step = STEP.lock().unwrap_or_else(PoisonError::into_inner);
        let count = step.1.entry(kind).or_default();
        *count += 1;
        let count = *count;
        (!step.0.is_empty()).then(|| format!("{}:{count}:{kind}", step.0))
    }

    fn wanted(name: &str) -> bool {
        if let Some(path) = std::env::var_os("NIX_UNROOT_CHECKPOINT_LOG")
            && let Ok(mut log) = std::fs::OpenOptions::new().append(true).create(true).open(path)
        {
            let _ = writeln!(log, "{name}");
        }
        std::env::var("NIX_UNROOT_CHECKPOINT").is_ok_and(|wanted| wanted == name)
    }

    fn die() {
        let _ = kill(getpid(), Signal::SIGKILL);
    }
}

#[cfg(feature = "checkpoints")]
pub use real::{enter, inside, inside_command, reach};

#[cfg(not(feature = "checkpoints"))]
mod nothing {
    /// Marks the instant `name`.
    pub fn reach(_name: &str) {}
    /// From here on, instants inside belong to `step`.
    pub fn enter(_step: &str) {}
    /// Marks an instant inside the step.
    pub fn inside(_kind: &'static str) {}
    /// Marks two instants while a command runs.
    pub fn inside_command(_leader: u32) {}
}

#[cfg(not(feature = "checkpoints"))]
pub use nothing::{enter, inside, inside_command, reach};
