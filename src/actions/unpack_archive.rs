//! An archive's store paths come into the store.
//!
//! They are unpacked into a directory inside the store, and so on its file system, by a child with the rights of the
//! store's owner. When all is there and on the disk, each path is renamed to its place: no other process ever sees half of one.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Seek};
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::added_paths::{Owner, remove_tree};
use super::fetch_archive::BYTES;
use super::{Act, Host, gid_of, show, uid_of};
use crate::archive::{Contents, UNPACK_COMMAND};
use crate::system::files::{self, Ownership};
use crate::system::watched::{self, Limits};
use crate::system::{checkpoint, command, kernel};
use crate::types::{NixVersion, StorePath};

/// Inside the store; not the name of a store path.
const STAGING: &str = ".nix-unroot-unpacking";
/// What the child may say, in bytes.
const REPORT_LIMIT: usize = 64 << 20;
/// How long the child may take: a minute at most on a slow disk; without end when a process of the same user's stops it.
const UNPACKING_TIME: Duration = Duration::from_secs(30 * 60);
/// The time between two words about progress.
const PROGRESS: Duration = Duration::from_millis(100);

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnpackArchive {
    /// The archive, a file of root's that was compared with its digest.
    pub path: PathBuf,
    /// The store.
    pub store: PathBuf,
    /// Who owns what is unpacked, and does the unpacking.
    pub user: String,
    /// That user's group.
    pub group: String,
}

/// What was unpacked, in the run's backups.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Unpacked {
    /// What the archive holds.
    pub contents: Contents,
    /// The paths that were not in the store before. Written down before the first of them comes there.
    pub new: BTreeSet<StorePath>,
}

impl Unpacked {
    fn file(host: &Host<'_>) -> PathBuf {
        host.backups.join("unpacked.json")
    }

    /// What this run unpacked; `None` when it did not come to that.
    pub(super) fn load(host: &Host<'_>) -> Result<Option<Self>> {
        let path = Self::file(host);
        match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            other => {
                let bytes = other.with_context(|| format!("cannot read {}", show(&path)))?;
                serde_json::from_slice(&bytes)
                    .map(Some)
                    .with_context(|| format!("{} is not as it was written", show(&path)))
            }
        }
    }

    fn save(&self, host: &Host<'_>) -> Result<()> {
        let path = Self::file(host);
        let bytes = serde_json::to_vec(self).context("cannot write down what was unpacked")?;
        files::replace(&path, &bytes, Ownership::root(0o600))
            .with_context(|| format!("cannot write {}", show(&path)))
    }
}

impl UnpackArchive {
    fn staging(&self) -> PathBuf {
        self.store.join(STAGING)
    }

    fn unpack(&self, host: &Host<'_>) -> Result<Contents> {
        let (uid, gid) = (uid_of(&self.user)?, gid_of(&self.group)?);
        let staging = self.staging();
        let context = || format!("cannot make the directory {}", show(&staging));
        DirBuilder::new().mode(0o700).create(&staging).with_context(context)?;
        checkpoint::inside("directory-made");
        lchown(&staging, Some(uid), Some(gid)).with_context(context)?;
        let limits = Limits { output: REPORT_LIMIT, ..host.limits(UNPACKING_TIME) };
        let context = || format!("cannot unpack {}", show(&self.path));
        let archive = File::open(&self.path).with_context(context)?;
        let input = archive.try_clone().with_context(context)?;
        let mut child = command::own_child(UNPACK_COMMAND, uid, gid);
        let report = thread::scope(|scope| {
            let (_unpacking, ended) = channel();
            let archive = &archive;
            scope.spawn(move || tell_progress(archive, &ended, host));
            watched::answer(child.arg(&staging), input, limits)
        })
        .with_context(context)?;
        serde_json::from_slice(&report).context("the child that unpacks gave no report")
    }

    fn sync(&self) -> Result<()> {
        let store = File::open(&self.store).with_context(|| format!("cannot open {}", show(&self.store)))?;
        kernel::sync_file_system(store).with_context(|| format!("cannot sync {}", show(&self.store)))
    }

    /// Removes what an attempt left. Names that are no store paths never come here.
    fn clear(&self, host: &Host<'_>) -> Result<()> {
        remove_tree(&self.staging())?;
        for path in Unpacked::load(host)?.into_iter().flat_map(|unpacked| unpacked.new) {
            remove_tree(&self.store.join(path.base_name()))?;
        }
        Ok(())
    }
}

impl Act for UnpackArchive {
    type Before = ();

    fn changes(&self) -> String {
        format!("unpacks {} into {}, as {}", show(&self.path), show(&self.store), self.user)
    }

    fn undone_by(&self) -> String {
        "removes the store paths that came from it, except what was built since and needs them".to_owned()
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<()> {
        Ok(())
    }

    fn apply(&self, host: &Host<'_>, (): &()) -> Result<()> {
        self.clear(host)?;
        let contents = self.unpack(host)?;
        check_version(&contents)?;
        self.sync()?;
        let is_new = |path: &&StorePath| self.store.join(path.base_name()).symlink_metadata().is_err();
        let new: BTreeSet<_> = contents.paths.iter().filter(is_new).cloned().collect();
        Unpacked { contents, new: new.clone() }.save(host)?;
        for path in &new {
            let name = path.base_name();
            fs::rename(self.staging().join(name), self.store.join(name))
                .with_context(|| format!("cannot move {path} into the store"))?;
        }
        remove_tree(&self.staging())?;
        self.sync()
    }

    fn undo(&self, host: &Host<'_>, (): &()) -> Result<()> {
        remove_tree(&self.staging())?;
        let Some(unpacked) = Unpacked::load(host)? else { return Ok(()) };
        // What the database still knows is needed by what was built since.
        let owner = Owner { user: &self.user, group: &self.group };
        match owner.unknown(host, &unpacked.new) {
            Ok(unknown) => {
                unknown.iter().try_for_each(|path| remove_tree(&self.store.join(path.base_name())))
            }
            Err(error) => {
                host.check_cancelled()?;
                host.observer.note(&format!("store paths that came along stay where they are: {error:#}"));
                Ok(())
            }
        }
    }
}

/// Tells how much of the archive was read, until the other end of `ended` is gone.
fn tell_progress(archive: &File, ended: &Receiver<Infallible>, host: &Host<'_>) {
    let Ok(total) = archive.metadata().map(|metadata| metadata.len()) else { return };
    while ended.recv_timeout(PROGRESS) == Err(RecvTimeoutError::Timeout) {
        // Whoever reads the archive has the same place in it.
        let Ok(read) = (&*archive).stream_position() else { return };
        host.observer.advance(read, total, BYTES);
    }
}

/// Refuses a Nix that cannot ask a root scanner, where the name of its store path tells the version.
fn check_version(contents: &Contents) -> Result<()> {
    let name = contents.nix.base_name().get(33..).unwrap_or_default();
    let version = name.strip_prefix("nix-").and_then(NixVersion::parse);
    if version.as_ref().is_some_and(|version| !version.at_least(NixVersion::FIRST_WITH_ROOTS_DAEMON)) {
        bail!("the archive holds {name}, which cannot ask a separate root scanner: 2.34 or newer is needed");
    }
    Ok(())
}
