//! A binary archive of Nix, fetched or copied to a place of root's, where nobody can change it after its digest was seen.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Act, Host, show};
use crate::archive::Source;
use crate::download;
use crate::system::files;
use crate::types::Sha256Digest;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchArchive {
    /// An absolute path, or a URL.
    pub from: String,
    /// What its bytes must be.
    pub sha256: Sha256Digest,
    /// Where it is kept until it is unpacked.
    pub path: PathBuf,
    /// A file of certificates to trust, instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<PathBuf>,
    /// A proxy to go through, instead of the one in the environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

impl FetchArchive {
    /// What was fetched so far; a download that broke off goes on from there, also in a later run.
    fn part(&self) -> PathBuf {
        self.path.with_extension("part")
    }

    fn fetch(&self, host: &Host<'_>) -> Result<()> {
        let part = self.part();
        if Source::is_url(&self.from) {
            let download = download::Download {
                url: &self.from,
                certificates: self.certificates.as_deref(),
                proxy: self.proxy.as_deref(),
            };
            return download.to(&part, &mut |done, total| {
                host.observer.advance(done, total, BYTES);
                host.check_cancelled()
            });
        }
        let context = || format!("cannot copy the archive {}", self.from);
        let mut source = File::open(&self.from).with_context(context)?;
        let mut copy = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        io::copy(&mut source, &mut copy).with_context(context)?;
        copy.flush().and_then(|()| copy.sync_all()).with_context(context)
    }

    fn digest(&self, path: &Path, host: &Host<'_>) -> Result<Sha256Digest> {
        let context = || format!("cannot read {}", show(path));
        let file = File::open(path).with_context(context)?;
        Sha256Digest::of(file, |_| host.check_cancelled().map_err(io::Error::other)).with_context(context)
    }
}

/// What progress is counted in.
pub(super) const BYTES: &str = "bytes";

impl Act for FetchArchive {
    type Before = ();

    fn changes(&self) -> String {
        let verb = if Source::is_url(&self.from) { "downloads" } else { "copies" };
        format!("{verb} {} to {}, and compares its SHA-256 with {}", self.from, show(&self.path), self.sha256)
    }

    fn undone_by(&self) -> String {
        "removes it; half a download is kept, to go on with".to_owned()
    }

    fn is_done(&self, host: &Host<'_>) -> Result<bool> {
        Ok(self.path.exists() && self.digest(&self.path, host)? == self.sha256)
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, host: &Host<'_>, (): &()) -> Result<()> {
        if let Some(directory) = self.path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .with_context(|| format!("cannot make the directory {}", show(directory)))?;
        }
        self.fetch(host)?;
        let found = self.digest(&self.part(), host)?;
        if found != self.sha256 {
            // What is wrong is no beginning of what is right.
            files::remove(&self.part())?;
            bail!(
                "{} is not the archive that was asked for: its SHA-256 is {found}, not {}; nothing of it was used",
                self.from,
                self.sha256
            );
        }
        fs::rename(self.part(), &self.path)
            .and_then(|()| files::sync_parent(&self.path))
            .with_context(|| format!("cannot keep {}", show(&self.path)))
    }

    fn undo(&self, _: &Host<'_>, (): &()) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", show(&self.path)))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_host::host;
    use super::*;

    fn action(dir: &Path, from: &Path, sha256: Sha256Digest) -> FetchArchive {
        let path = dir.join("archives").join("x.archive");
        FetchArchive { from: from.display().to_string(), sha256, path, certificates: None, proxy: None }
    }

    #[test]
    fn a_file_is_copied_when_its_digest_is_right_and_not_kept_when_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let from = dir.path().join("nix.tar");
        fs::write(&from, "archive").unwrap();
        let right = Sha256Digest::of(&b"archive"[..], |_| Ok(())).unwrap();
        let good = action(dir.path(), &from, right.clone());
        assert!(!good.is_done(&host).unwrap());
        good.apply(&host, &()).unwrap();
        good.apply(&host, &()).unwrap();
        assert!(good.is_done(&host).unwrap());
        good.undo(&host, &()).unwrap();
        assert!(!good.path.exists());

        let wrong = Sha256Digest::of(&b"another"[..], |_| Ok(())).unwrap();
        let bad = action(dir.path(), &from, wrong.clone());
        let said = bad.apply(&host, &()).unwrap_err().to_string();
        assert!(said.contains(&right.to_string()) && said.contains(&wrong.to_string()), "{said}");
        assert_eq!(fs::read_dir(dir.path().join("archives")).unwrap().count(), 0);
    }
}
