//! A link where a daemon had its socket, to the socket that launchd makes elsewhere.
//!
//! launchd makes sockets when it loads a job, which is before Nix's volume is mounted. What a daemon left of its own socket is removed: it
//! makes it anew whenever it starts.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::drift::{Aspect, Drift, Repair};
use super::{Act, Host, show};
use crate::system::files;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSocket {
    /// The link, in a directory of root's.
    pub path: PathBuf,
    /// Where launchd makes the socket.
    pub target: PathBuf,
}

impl LinkSocket {
    /// Fails when something other than a socket or our link stands there.
    fn ensure_free(&self) -> Result<()> {
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot look at {}", show(&self.path))),
            Ok(found) if found.file_type().is_socket() || self.is_linked() => Ok(()),
            Ok(_) => bail!("{} is not a socket: move it away first", show(&self.path)),
        }
    }

    fn is_linked(&self) -> bool {
        fs::read_link(&self.path).is_ok_and(|target| target == self.target)
    }
}

impl Act for LinkSocket {
    type Before = ();

    fn changes(&self) -> String {
        format!("links {} to launchd's socket {}", show(&self.path), show(&self.target))
    }

    fn undone_by(&self) -> String {
        "removes the link; the daemon of before makes its socket when it starts".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(self.is_linked())
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        self.ensure_free()
    }

    fn apply(&self, _: &Host<'_>, (): &()) -> Result<()> {
        self.ensure_free()?;
        files::replace_with_symlink(&self.path, &self.target)
            .with_context(|| format!("cannot link {} to {}", show(&self.path), show(&self.target)))
    }

    fn undo(&self, host: &Host<'_>, (): &()) -> Result<()> {
        if self.is_linked() {
            return files::remove(&self.path).with_context(|| format!("cannot remove {}", show(&self.path)));
        }
        files::forget_temporary(&self.path);
        if fs::symlink_metadata(&self.path).is_ok_and(|found| !found.file_type().is_socket()) {
            host.observer.note(&format!("{} is somebody else's, and stays", show(&self.path)));
        }
        Ok(())
    }

    fn look_for_drift(&self, _: &Host<'_>, _: Option<&()>) -> Result<Vec<Drift>> {
        let drift = || Drift::new(&self.path, Aspect::Content, "the link is gone", Repair::Again);
        Ok((!self.is_linked()).then(drift).into_iter().collect())
    }

    fn decides(&self, path: &Path, aspect: Aspect) -> bool {
        path == self.path && aspect == Aspect::Content
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::super::test_host::host;
    use super::*;

    #[test]
    fn a_socket_makes_room_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let path = dir.path().join("socket");
        let action = LinkSocket { path: path.clone(), target: "/var/run/socket".into() };
        drop(UnixListener::bind(&path).unwrap());
        for _ in 0..2 {
            action.apply(&host, &()).unwrap();
            assert!(action.is_done(&host).unwrap());
        }
        for _ in 0..2 {
            action.undo(&host, &()).unwrap();
            assert!(path.symlink_metadata().is_err());
        }
        fs::write(&path, "somebody's").unwrap();
        assert!(action.capture(&host).is_err() && action.apply(&host, &()).is_err());
        action.undo(&host, &()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's");
    }
}
