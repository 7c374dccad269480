//! Everything below a directory changes hands.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::drift::{Aspect, Drift, Repair};
use super::{Act, Action, Host, gid_of, show, uid_of};
use crate::facts::macos;
use crate::reown::{self, Listed, Outcome, Plain, Progress, ReownError, Rule, Tree, Unrecorded};
use crate::system::kernel;
use crate::types::SubidRange;

/// How often progress is told.
const TICK: Duration = Duration::from_millis(150);
/// How many paths of a kind are named in a note.
const NAMED: usize = 5;

/// Parameters.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reown {
    /// The directory.
    pub root: PathBuf,
    /// Whether the directory itself changes hands too.
    #[serde(default)]
    pub include_root: bool,
    /// Paths below it, relative to it, that are left alone.
    #[serde(default)]
    pub skip: Vec<PathBuf>,
    /// The new owner, by name.
    pub user: String,
    /// The new group, by name.
    pub group: String,
    /// Uids besides root's whose files change hands: the build users', and the person's whose the tree was.
    pub also_from: Vec<u32>,
    /// Whose most of it is: root's, unless a person owned the tree.
    #[serde(default = "of_root")]
    pub plain: Plain,
    /// Directories, relative to it, that everybody may write to although a person owned the tree.
    #[serde(default)]
    pub may_be_open: Vec<PathBuf>,
    /// Uids that builds have since: what they left behind goes to root when this is undone.
    pub left_overs: SubidRange,
    /// Whether the tree is the user's already but for what somebody gave back to root: then just that changes hands, and just that
    /// goes back when this is undone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_strays: bool,
}

impl Reown {
    fn tree(&self) -> Tree {
        Tree { root: self.root.clone(), skip: self.skip.clone(), include_root: self.include_root }
    }

    /// The exceptions to "everything was root:root". Made before the first change, so without it nothing was changed.
    fn record(&self, host: &Host<'_>) -> PathBuf {
        let name = self.root.to_string_lossy().trim_matches('/').replace('/', "-");
        host.backups.join(format!("owners-{name}"))
    }

    fn rule(&self) -> Result<Rule> {
        let from = std::iter::once(0).chain(self.also_from.iter().copied()).collect();
        Ok(Rule {
            plain: self.plain,
            may_be_open: self.may_be_open.clone(),
            from,
            to_uid: uid_of(&self.user)?,
            to_gid: gid_of(&self.group)?,
            record_all: self.only_strays,
        })
    }

    /// Tells what was left alone, and fails when anything did not change hands that should have: what stays root's the
    /// daemon can never delete, and what stays the nix user's after a rollback it can still write.
    fn settle(&self, host: &Host<'_>, outcome: &Outcome) -> Result<()> {
        report(host, &self.root, outcome);
        let (refused, open) = match macos::is_here() {
            true => (
                "are immutable or append-only; see ls -lO, and use chflags nouchg,noschg,nouappnd,nosappnd",
                "can be written to by others than their owner; see ls -le, and use chmod go-w and chmod -N",
            ),
            false => (
                "are immutable or append-only; see lsattr, and use chattr -i -a",
                "can be written to by others than their owner; see getfacl, and use chmod go-w",
            ),
        };
        let left = [
            (
                &outcome.foreign_links,
                "have names outside it; find those with find -xdev -samefile, and remove them",
            ),
            (&outcome.refused, refused),
            (
                &outcome.too_long,
                "have paths longer than any store path's, which a build must have made: look at them (find DIRECTORY -xdev), and remove what is below \
                 the directories named here",
            ),
            (&outcome.unsettled, "kept changing; end the processes that change them"),
            (&outcome.open, open),
        ];
        let left: Vec<_> = left.into_iter().filter(|(list, _)| list.count > 0).collect();
        if left.is_empty() {
            return Ok(());
        }
        let words = left.iter().map(|(list, text)| format!("{} {text} ({})", list.count, some(list)));
        let words: Vec<_> = words.collect();
        bail!("not everything below {} could change hands: {}", show(&self.root), words.join("; "))
    }

    /// Does `work` while another thread tells how far it is.
    fn watched(
        &self,
        host: &Host<'_>,
        work: impl FnOnce(&Progress) -> Result<Outcome, ReownError>,
    ) -> Result<Outcome> {
        let progress = Progress::default();
        let total = used_inodes(&self.root);
        let (working, done) = mpsc::channel::<()>();
        let outcome = thread::scope(|scope| {
            scope.spawn(|| {
                let done = done;
                // Nothing is sent: the sender is dropped when the work is done.
                while done.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    host.observer.advance(progress.visited.load(Ordering::Relaxed), total, "files");
                }
            });
            let _working = working;
            work(&progress)
        });
        Ok(outcome?)
    }
}

impl Act for Reown {
    /// The uid of the new owner: somebody may remove the account before this is undone.
    type Before = Option<u32>;

    fn changes(&self) -> String {
        let what = if self.include_root { "" } else { "what is in " };
        let owners = match (self.plain == Plain::ROOT, self.also_from.is_empty()) {
            (true, true) => "root owns it".to_owned(),
            (true, false) => "root or a build user owns it".to_owned(),
            (false, _) => format!("root, a build user or uid {} owns it", self.plain.uid),
        };
        format!("gives {what}{}, as far as {owners}, to {}:{}", show(&self.root), self.user, self.group)
    }

    fn undone_by(&self) -> String {
        let owner = match self.plain {
            Plain::ROOT => "root".to_owned(),
            Plain { uid, .. } => format!("uid {uid}"),
        };
        format!(
            "gives it back to {owner}, and every exception to whom it belonged; what was added since goes along"
        )
    }

    fn is_done(&self, _: &Host<'_>) -> Result<bool> {
        Ok(false)
    }

    fn capture(&self, _: &Host<'_>) -> Result<Option<u32>> {
        uid_of(&self.user).map(Some)
    }

    fn apply(&self, host: &Host<'_>, _: &Option<u32>) -> Result<()> {
        let rule = self.rule()?;
        let record = self.record(host);
        let outcome = self
            .watched(host, |progress| reown::reown(&self.tree(), &rule, &record, progress, host.cancelled))?;
        self.settle(host, &outcome)
    }

    fn undo(&self, host: &Host<'_>, owner: &Option<u32>) -> Result<()> {
        let record = self.record(host);
        if !record.exists() {
            return Ok(());
        }
        let owner = owner
            .map_or_else(|| uid_of(&self.user), Ok)
            .context("its owner is needed to know what was changed")?;
        let (left_overs, unrecorded) = match self.only_strays {
            true => (None, Unrecorded::Stays),
            false => (Some(self.left_overs), Unrecorded::To(self.plain)),
        };
        let outcome = self.watched(host, |progress| {
            reown::restore(&self.tree(), unrecorded, &record, owner, left_overs, progress, host.cancelled)
        })?;
        self.settle(host, &outcome)
    }

    fn look_for_drift(&self, host: &Host<'_>, _: Option<&Option<u32>>) -> Result<Vec<Drift>> {
        let mut tree = self.tree();
        // Root's own profile and roots: root's commands write there, and nobody else needs to.
        tree.skip.extend(["profiles/per-user/root", "gcroots/per-user/root"].map(PathBuf::from));
        let strays = reown::strays(&tree, &self.rule()?, host.cancelled)?;
        if strays.count == 0 {
            return Ok(Vec::new());
        }
        let found =
            format!("{} of what is in it belong to root or a build user: {}", strays.count, some(&strays));
        let again = Self { only_strays: true, plain: Plain::ROOT, ..self.clone() };
        Ok(vec![Drift::new(&self.root, Aspect::Below, found, Repair::By(Box::new(Action::Reown(again))))])
    }

    fn decides(&self, path: &Path, aspect: Aspect) -> bool {
        let Ok(below) = path.strip_prefix(&self.root) else { return false };
        let is_walked = self.include_root || !below.as_os_str().is_empty();
        aspect == Aspect::Owner && is_walked && !self.skip.iter().any(|skip| below.starts_with(skip))
    }
}

fn of_root() -> Plain {
    Plain::ROOT
}

fn report(host: &Host<'_>, root: &Path, outcome: &Outcome) {
    let lists = [
        (&outcome.other_mounts, "mount points below it are left alone"),
        (
            &outcome.special_modes,
            "set-uid, set-gid or capability files lost that mark, or did not get it back",
        ),
    ];
    for (list, text) in lists {
        if list.count > 0 {
            host.observer.note(&format!("{}: {} {text}: {}", root.display(), list.count, some(list)));
        }
    }
}

fn some(list: &Listed) -> String {
    let named: Vec<_> = list.paths.iter().take(NAMED).map(|path| format!("{path:?}")).collect();
    let more = if list.count > NAMED as u64 { ", ..." } else { "" };
    format!("{}{more}", named.join(", "))
}

/// About how many files there are: those of the whole file system, an upper bound. 0 when it does not say.
fn used_inodes(path: &Path) -> u64 {
    kernel::room(path).map_or(0, |room| room.used_inodes)
}
