//! Runs that brought something into the store: undoing one takes that away again.

use std::path::Path;

use anyhow::Result;

use crate::actions::Action;
use crate::engine;
use crate::journal::{Journal, Run, StepState};

/// Directories that go with all that is in them when the step that made them is undone.
const STORE: [&str; 4] = ["/nix", "/nix/store", "/nix/var", "/nix/var/nix"];

/// What a run brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brought {
    /// The run's number.
    pub run: i64,
    /// Its plan's name.
    pub plan_name: String,
    /// Whether it made the store itself; else it put a newer Nix into one that was there.
    pub whole: bool,
}

impl Brought {
    /// Of all runs that can be undone, however many lie on each other, the first one made.
    ///
    /// # Errors
    /// When the journal cannot be read, or holds what this version does not know.
    pub fn find(journal: &Journal) -> Result<Option<Self>> {
        for run in journal.runs()?.into_iter().filter(|run| !run.state.is_over()) {
            if let Some(whole) = brings(journal, &run)? {
                return Ok(Some(Self { run: run.id, plan_name: run.plan_name, whole }));
            }
        }
        Ok(None)
    }

    /// Why a removal that keeps the store is not begun, and what to do instead.
    pub fn blocks(&self) -> String {
        let Self { run, plan_name, whole } = self;
        match whole {
            true => format!(
                "--keep-store: run {run} ({plan_name}) made the store, and removing Nix undoes that run, which takes the store with it: \
                 copy what you need to another place (nix copy --all --no-check-sigs --to file:///PLACE), and run this without --keep-store"
            ),
            false => format!(
                "--keep-store: run {run} ({plan_name}) put a newer Nix into the store, and removing Nix undoes that run, which takes those \
                 store paths with it: run nix-unroot rollback first, when they may go, and then this again"
            ),
        }
    }
}

/// Whether undoing the run would take something out of the store, and if so, whether all of it. A step that found its work done, or never
/// began, takes nothing away.
fn brings(journal: &Journal, run: &Run) -> Result<Option<bool>> {
    let mut found = None;
    for (step, record) in engine::recorded_plan(run)?.steps.iter().zip(journal.steps(run.id)?) {
        if matches!(record.state, StepState::Pending | StepState::Skipped | StepState::Undone) {
            continue;
        }
        match &step.action {
            Action::CreateVolume(_) => return Ok(Some(true)),
            Action::CreateDirectory(made) if STORE.iter().any(|path| made.path == Path::new(path)) => {
                return Ok(Some(true));
            }
            Action::UnpackArchive(_) => found = Some(false),
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::RunState;

    /// A journal in which these runs lie on each other: the plan's name, and of each step what it does and how far it is.
    fn journal(dir: &Path, runs: &[(&str, &[(&str, StepState)])]) -> Journal {
        let mut journal = Journal::open(&dir.join("journal.db")).unwrap();
        for (name, steps) in runs {
            let ids: Vec<_> = (0..steps.len()).map(|number| format!("step-{number}")).collect();
            let listed = ids.iter().zip(*steps);
            let listed = listed.map(|(id, (action, _))| {
                format!("[[step]]\nid = \"{id}\"\nstage = \"s\"\nwhy = \"w\"\n{action}\n")
            });
            let plan = format!(
                "format = 1\nname = \"{name}\"\nsummary = \"x\"\nmade_from = \"x\"\n[stages]\ns = \"x\"\n{}",
                listed.collect::<String>()
            );
            let ids: Vec<_> = ids.iter().map(String::as_str).collect();
            let run = journal.begin(name, &plan, &ids).unwrap();
            for (index, (_, state)) in steps.iter().enumerate() {
                journal.begin_step(run, index, "null").unwrap();
                journal.set_step(run, index, *state, None).unwrap();
            }
            journal.set_run(run, RunState::Applied).unwrap();
        }
        journal
    }

    #[test]
    fn whatever_lies_on_an_installation_it_is_seen() {
        let directory =
            |path: &str| format!("action = \"create-directory\"\npath = \"{path}\"\nmode = \"0755\"");
        let (store, socket) = (directory("/nix/store"), directory("/nix/var/nix/daemon-socket"));
        let volume = "action = \"create-volume\"\nname = \"n\"\ncontainer = \"c\"";
        let archive = "action = \"unpack-archive\"\npath = \"/a\"\nstore = \"/nix/store\"\nuser = \"nix\"\ngroup = \"nix\"";
        let (done, undoing) = (StepState::Done, StepState::Undoing);
        type Runs<'a> = Vec<(&'a str, Vec<(&'a str, StepState)>)>;
        let cases: Vec<(Runs<'_>, Option<(i64, bool)>)> = vec![
            (vec![], None),
            (vec![("migrate", vec![(&socket, done)])], None),
            (vec![("install", vec![(&store, done)])], Some((1, true))),
            (vec![("install", vec![(volume, undoing)])], Some((1, true))),
            (vec![("install", vec![(&store, StepState::Skipped), (volume, StepState::Undone)])], None),
            (vec![("migrate", vec![(&socket, done), (archive, done)])], Some((1, false))),
            (
                vec![
                    ("install", vec![(&store, done)]),
                    ("audit-fix", vec![]),
                    ("repair", vec![(&socket, done)]),
                ],
                Some((1, true)),
            ),
        ];
        for (runs, expected) in cases {
            let dir = tempfile::tempdir().unwrap();
            let listed: Vec<_> = runs.iter().map(|(name, steps)| (*name, steps.as_slice())).collect();
            let found = Brought::find(&journal(dir.path(), &listed)).unwrap();
            assert_eq!(found.map(|brought| (brought.run, brought.whole)), expected, "{runs:?}");
        }
    }
}
