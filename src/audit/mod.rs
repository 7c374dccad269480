//! What could still lead from the user that owns the store to root.
//!
//! A table of [`sources`] says what root executes, sources, loads or reads as policy. Each name is walked component by component
//! ([`resolve`]), and is a hit when somebody of the [`Subject`] could put something else in its place.

mod acl;
mod fix;
mod resolve;
mod sources;
mod subject;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use fix::plan as fix_plan;
pub use subject::Subject;

use crate::facts::{Machine, Reader, Unread};
use sources::{Found, Source};

/// How bad a hit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Danger {
    /// It takes a decision of root's or another flaw.
    Low,
    /// It happens when root calls a program by its name.
    Medium,
    /// It happens by itself: at boot, by a timer, at root's next login.
    High,
}

/// A way from the subject to root.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
pub struct Hit {
    /// Stable name of the kind.
    pub key: String,
    /// How bad it is.
    pub danger: Danger,
    /// The name that root uses.
    pub name: PathBuf,
    /// The file that makes root use it, when that is another one.
    pub named_by: Option<PathBuf>,
    /// How the name leads to what the subject controls, hop by hop.
    pub chain: Vec<String>,
    /// When root does it.
    pub trigger: String,
    /// What to do about it.
    pub remedy: String,
    /// What `audit --fix` does about it; `None` when that is nothing.
    pub fix: Option<Fix>,
}

/// A safe remedy.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fix {
    /// A link is replaced by a copy of the file that it leads to.
    Copy {
        /// Its text, as it is now.
        text: String,
    },
    /// Lines of a start-up file get a condition that keeps root out.
    Guard {
        /// The line as it is.
        old: String,
        /// As it will be.
        new: String,
    },
    /// Root's user manager gets a search path of its own.
    UserManagerPath,
}

/// Looks for every way there is. Reads only.
pub fn look(machine: &Machine, subject: &Subject) -> (Vec<Hit>, Vec<Unread>) {
    let reader = Reader::new(machine);
    let mut hits = Vec::new();
    for source in sources::all() {
        let scene = sources::Scene { reader: &reader, subject };
        for found in (source.find)(&scene) {
            hits.extend(judge(&scene, source, found));
        }
    }
    hits.sort_by(|a: &Hit, b| {
        (b.danger, &a.key, &a.name, &a.named_by).cmp(&(a.danger, &b.key, &b.name, &b.named_by))
    });
    hits.dedup();
    (hits, reader.into_unread())
}

fn judge(scene: &sources::Scene<'_>, source: &Source, found: Found) -> Option<Hit> {
    let Found { name, named_by, direct, guard, danger } = found;
    let (chain, link) = match direct {
        Some(why) => (vec![why], false),
        None => {
            let weak = resolve::resolve(scene.reader, scene.subject, &name)?;
            (weak.chain, weak.through_link)
        }
    };
    let copy = || {
        let readable = link && source.copies && named_by.is_none();
        readable.then(|| copy_of(scene, &name)).flatten().map(|text| Fix::Copy { text })
    };
    Some(Hit {
        key: source.key.to_owned(),
        danger: danger.unwrap_or(source.danger),
        fix: guard.or_else(copy),
        name,
        named_by,
        chain,
        trigger: source.trigger.to_owned(),
        remedy: source.remedy.to_owned(),
    })
}

/// The text behind a link, when it is one that can be written in a plan. The file has to be the subject's own: it could have been made a
/// link to one that only root may read, and a copy is everybody's to read.
fn copy_of(scene: &sources::Scene<'_>, name: &Path) -> Option<String> {
    let machine = scene.reader.machine;
    machine.read_link(name).ok()?;
    let own = |real: &Path, uid, gid| scene.subject.has_uid(scene.subject.standing(real, uid, gid, 0).uid);
    machine.read_of(name, fix::MAX_COPY, own).ok().filter(|text| !text.contains('\0'))
}
