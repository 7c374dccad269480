//! A copy of a program at its place.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conflict::{Scan, Wrote, ensure_untouched, sha256, undo_owned};
use super::drift::{self, Aspect, Drift, Repair};
use super::file_state::FileState;
use super::{Act, Host, show};
use crate::system::files::{self, Ownership};

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallProgram {
    /// The program to copy.
    pub source: PathBuf,
    /// Where to.
    pub path: PathBuf,
}

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    #[serde(flatten)]
    state: FileState,
    /// SHA-256 of the program that is copied, in hexadecimal: its source may be another one when this is undone.
    #[serde(default)]
    wrote: String,
}

impl InstallProgram {
    fn bytes(&self) -> Result<Vec<u8>> {
        fs::read(&self.source).with_context(|| format!("cannot read the program {}", show(&self.source)))
    }
}

impl Before {
    fn wrote(&self) -> Wrote {
        Wrote::Digest(self.wrote.clone())
    }
}

impl Act for InstallProgram {
    type Before = Before;

    fn changes(&self) -> String {
        format!("copies {} to {} (root:root 0755)", show(&self.source), show(&self.path))
    }

    fn undone_by(&self) -> String {
        "puts back what was there, or removes it".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(is_program(&self.path)
            && fs::read(&self.path).is_ok_and(|there| self.bytes().is_ok_and(|ours| ours == there)))
    }

    fn capture(&self, host: &Host<'_>) -> Result<Before> {
        Ok(Before { wrote: sha256(&self.bytes()?), state: FileState::capture(&self.path, host)? })
    }

    fn apply(&self, host: &Host<'_>, before: &Before) -> Result<()> {
        ensure_untouched(&self.path, &before.state, &before.wrote(), host)?;
        let bytes = self.bytes()?;
        if sha256(&bytes) != before.wrote {
            bail!(
                "{} is not the program that it was when the run began: nix-unroot rollback, and begin again",
                show(&self.source)
            );
        }
        files::replace(&self.path, &bytes, Ownership::root(0o755))
            .with_context(|| format!("cannot install {}", show(&self.path)))
    }

    fn undo(&self, host: &Host<'_>, before: &Before) -> Result<()> {
        undo_owned(&self.path, &before.state, &before.wrote(), Ownership::root(0o755), host)
    }

    fn look_for_conflicts(&self, scan: &mut Scan<'_>, before: &Before) -> Result<()> {
        scan.placed(&self.path, &before.state, before.wrote())
    }

    /// Without a record the program was there already, and nobody knows which one it was.
    fn look_for_drift(&self, host: &Host<'_>, before: Option<&Before>) -> Result<Vec<Drift>> {
        let drift = match before {
            Some(before) => drift::of_placed(&self.path, Some(&before.state), &before.wrote(), host)?,
            None if self.path.symlink_metadata().is_ok() => None,
            None => Some(Drift::new(&self.path, Aspect::Content, "it is gone", Repair::Again)),
        };
        match drift {
            Some(drift) => Ok(vec![drift]),
            None => drift::of_owner(&self.path, Ownership::root(0o755)),
        }
    }

    fn decides(&self, path: &Path, aspect: Aspect) -> bool {
        path == self.path && aspect != Aspect::Runs
    }
}

fn is_program(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && Ownership::of(&metadata) == Ownership::root(0o755))
}

#[cfg(test)]
mod tests {
    use super::super::test_host::host;
    use super::*;

    #[test]
    fn a_resumed_run_does_not_write_over_what_somebody_put_there() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let action = InstallProgram { source: dir.path().join("source"), path: dir.path().join("program") };
        fs::write(&action.source, "ours").unwrap();
        let before = action.capture(&host).unwrap();
        for _ in 0..2 {
            action.apply(&host, &before).unwrap();
            assert!(action.is_done(&host).unwrap());
        }
        fs::write(&action.path, "theirs").unwrap();
        action.apply(&host, &before).unwrap_err();
        action.undo(&host, &before).unwrap_err();
        assert_eq!(fs::read_to_string(&action.path).unwrap(), "theirs");
        // Nor is another program installed than the one that the run began with.
        fs::remove_file(&action.path).unwrap();
        fs::write(&action.source, "another").unwrap();
        action.apply(&host, &before).unwrap_err();
        assert!(!action.path.exists());
    }
}
