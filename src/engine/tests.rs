//! Rows that read as a scenario: which steps a run has, what happens to it, and what it does in which order.
//!
//! The effects are real files in a temporary directory.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::plan::Plan;

#[cfg(target_os = "linux")]
mod full_disk;
mod signals;

/// Writes down what a run does.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Observer for Recorder {
    fn note(&self, _: &str) {}
    fn advance(&self, _: u64, _: u64, _: &str) {}
}

impl RunObserver for Recorder {
    fn step_begins(&self, _: Direction, _: usize, _: usize, _: &Step) {}

    fn step_ends(&self, direction: Direction, _: usize, step: &Step, ending: &StepEnding) {
        let way = if direction == Direction::Forward { "do" } else { "undo" };
        let how = match ending {
            StepEnding::Done => "",
            StepEnding::Skipped => "-skipped",
            StepEnding::Failed(_) => "-failed",
        };
        self.0.lock().unwrap().push(format!("{}:{way}{how}", step.id));
    }

    fn as_observer(&self) -> &dyn Observer {
        self
    }
}

struct Bench {
    dir: tempfile::TempDir,
    journal: Journal,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(&dir.path().join("state/journal.sqlite")).unwrap();
        Self { dir, journal }
    }

    /// `file` writes a file of that name; `there` a file that is there already; `bad` fails, as its directory is missing.
    fn plan(&self, steps: &[&str]) -> Plan {
        let mut text =
            "format = 1\nname = 'test'\nsummary = 's'\nmade_from = ''\nstages = { s = 'all' }\n".to_owned();
        for id in steps {
            let file = match *id {
                "bad" => self.file("missing/bad"),
                id => self.file(id),
            };
            if *id == "there" {
                fs::write(&file, "there").unwrap();
                fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
            }
            text.push_str(&format!(
                "[[step]]\nid = '{id}'\nstage = 's'\nwhy = 'w'\naction = 'write-file'\npath = '{}'\nmode = '0644'\ntext = '{id}'\n",
                file.display()
            ));
        }
        Plan::read(&text).unwrap()
    }

    fn apply(&mut self, keep_partial: bool, plan: &Plan) -> (String, Ending) {
        let run = begin(&mut self.journal, &self.dir.path().join("backups"), plan).unwrap();
        self.run(keep_partial, |engine| engine.apply(run, plan))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(
        &mut self,
        keep_partial: bool,
        work: impl FnOnce(&mut Engine<'_>) -> Result<Ending>,
    ) -> (String, Ending) {
        let recorder = Recorder::default();
        let cancelled = AtomicBool::new(false);
        let mut engine = Engine {
            journal: &mut self.journal,
            backups: self.dir.path().join("backups"),
            observer: &recorder,
            cancelled: &cancelled,
            keep_partial,
            lost: None,
            work_places: &[],
        };
        let ending = work(&mut engine).unwrap();
        (recorder.0.into_inner().unwrap().join(" "), ending)
    }

    fn files(&self) -> Vec<String> {
        let ours = |name: &String| !["state", "backups"].contains(&name.as_str());
        let names = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).filter(ours).collect();
        names.sort();
        names
    }
}

#[test]
fn runs_read_as_scenarios() {
    /// Steps, `--keep-partial`, what happens, how it ends, and which files are there then.
    type Row = (&'static [&'static str], bool, &'static str, Ending, &'static [&'static str]);
    let rows: [Row; 5] = [
        (&["a", "b"], false, "a:do b:do", Ending::Applied, &["a", "b"]),
        (&["there", "a"], false, "there:do-skipped a:do", Ending::Applied, &["a", "there"]),
        (
            &["a", "there", "b", "bad", "c"],
            false,
            "a:do there:do-skipped b:do bad:do-failed bad:undo b:undo a:undo",
            Ending::FailedAndUndone,
            &["there"],
        ),
        (&["a", "bad", "c"], true, "a:do bad:do-failed", Ending::Stuck, &["a"]),
        (&["bad"], false, "bad:do-failed bad:undo", Ending::FailedAndUndone, &[]),
    ];
    for (steps, keep_partial, events, ending, files) in rows {
        let mut bench = Bench::new();
        let plan = bench.plan(steps);
        let (seen, ended) = bench.apply(keep_partial, &plan);
        assert_eq!((seen.as_str(), ended), (events, ending), "{steps:?}");
        assert_eq!(bench.files(), files, "{steps:?}");
    }
}

#[test]
fn a_finished_run_is_rolled_back_once() {
    let mut bench = Bench::new();
    let plan = bench.plan(&["a", "there", "b"]);
    bench.apply(false, &plan);
    let run = bench.journal.current().unwrap().unwrap();
    let (seen, ended) = bench.run(false, |engine| engine.roll_back(&run));
    assert_eq!((seen.as_str(), ended), ("b:undo a:undo", Ending::Undone));
    assert_eq!(bench.files(), ["there"], "what was there before the run stays");
    assert!(bench.journal.current().unwrap().is_none());
}

/// A run dies between any two durable writes; resuming gives what an undisturbed run gives, rolling back gives nothing.
#[test]
fn whatever_was_recorded_last_resume_and_rollback_are_exact() {
    let states = [StepState::Pending, StepState::Doing, StepState::Done];
    for died_in in ["a", "b", "c"] {
        for state in states {
            for applied in [false, true] {
                for back in [false, true] {
                    died(died_in, state, applied, back);
                }
            }
        }
    }
}

fn died(died_in: &str, state: StepState, applied: bool, back: bool) {
    let ids = ["a", "b", "c"];
    let mut bench = Bench::new();
    let plan = bench.plan(&ids);
    let run = bench.journal.begin("test", &plan.to_json().unwrap(), &ids).unwrap();
    for (index, id) in ids.iter().enumerate() {
        let last = *id == died_in;
        if last && state == StepState::Pending {
            break;
        }
        bench.journal.begin_step(run, index, r#"{"was":"absent"}"#).unwrap();
        if !last || applied || state == StepState::Done {
            fs::write(bench.file(id), id).unwrap();
        }
        if !last || state == StepState::Done {
            bench.journal.set_step(run, index, StepState::Done, None).unwrap();
        }
        if last {
            break;
        }
    }
    let run = bench.journal.current().unwrap().unwrap();
    let (_, ended) =
        bench.run(false, |engine| if back { engine.roll_back(&run) } else { engine.resume(&run) });
    let expected: (Ending, &[&str]) = if back { (Ending::Undone, &[]) } else { (Ending::Applied, &ids) };
    assert_eq!(
        (ended, bench.files()),
        (expected.0, expected.1.iter().map(ToString::to_string).collect()),
        "{died_in} {state:?}"
    );
}

#[test]
fn an_undo_that_fails_stops_and_the_next_one_goes_on() {
    let mut bench = Bench::new();
    let plan = bench.plan(&["a", "b"]);
    bench.apply(false, &plan);
    let run = bench.journal.current().unwrap().unwrap();
    let blocked = bench.file("a");
    let chattr = |flag: &str| std::process::Command::new("chattr").arg(flag).arg(&blocked).status().unwrap();
    assert!(chattr("+i").success(), "the temporary directory's file system has no immutable files");
    let (seen, ended) = bench.run(false, |engine| engine.roll_back(&run));
    assert!(chattr("-i").success());
    assert_eq!((seen.as_str(), ended), ("b:undo a:undo-failed", Ending::Stuck));
    let recorded = bench.journal.steps(run.id).unwrap();
    assert!(recorded[0].error.as_deref().is_some_and(|error| error.contains("not permitted")));
    let run = bench.journal.current().unwrap().unwrap();
    let (seen, ended) = bench.run(false, |engine| engine.resume(&run));
    assert_eq!((seen.as_str(), ended), ("a:undo", Ending::Undone));
}

/// Else the run would be undone as far as it can be, and nothing could end it.
#[test]
fn a_step_for_good_whose_record_the_database_refused_once_is_finished() {
    let mut bench = Bench::new();
    let text = bench.plan(&["a"]).to_json().unwrap();
    let mut plan = Plan::read(&text).unwrap();
    let tree = bench.file("tree");
    fs::create_dir(&tree).unwrap();
    let delete = format!(
        "format = 1\nname = 'test'\nsummary = 's'\nmade_from = ''\nstages = {{ s = 'all' }}\n\
         [[step]]\nid = 'delete'\nstage = 's'\nwhy = 'w'\naction = 'delete-tree'\npath = '{}'\n",
        tree.display()
    );
    plan.steps.extend(Plan::read(&delete).unwrap().steps);
    let run = begin(&mut bench.journal, &bench.dir.path().join("backups"), &plan).unwrap();
    // RAISE(FAIL) keeps what was done before it (https://www.sqlite.org/lang_createtrigger.html), so it fails once.
    let database = rusqlite::Connection::open(bench.file("state/journal.sqlite")).unwrap();
    database
        .execute_batch(
            "CREATE TABLE failed (once);
             CREATE TRIGGER fails BEFORE UPDATE ON steps
                 WHEN NEW.id = 'delete' AND NEW.state = 'doing' AND NOT EXISTS (SELECT 1 FROM failed)
                 BEGIN INSERT INTO failed VALUES (1); SELECT RAISE(FAIL, 'no'); END",
        )
        .unwrap();
    let (seen, ended) = bench.run(false, |engine| engine.apply(run, &plan));
    assert_eq!((seen.as_str(), ended), ("a:do delete:do-failed", Ending::Stuck));
    database.execute_batch("DROP TRIGGER fails; DROP TABLE failed").unwrap();
    let run = bench.journal.current().unwrap().unwrap();
    let (seen, ended) = bench.run(false, |engine| engine.resume(&run));
    assert_eq!((seen.as_str(), ended, tree.exists()), ("delete:do", Ending::Final, false));
}

#[test]
fn an_unknown_action_in_the_journal_is_refused() {
    let mut bench = Bench::new();
    let text = bench.plan(&["a"]).to_json().unwrap().replace("write-file", "frobnicate");
    bench.journal.begin("test", &text, &["a"]).unwrap();
    let run = bench.journal.current().unwrap().unwrap();
    let recorder = Recorder::default();
    let cancelled = AtomicBool::new(false);
    let backups = Path::new("/nonexistent").to_owned();
    let mut engine = Engine {
        journal: &mut bench.journal,
        backups,
        observer: &recorder,
        cancelled: &cancelled,
        keep_partial: false,
        lost: None,
        work_places: &[],
    };
    let error = format!("{:#}", engine.resume(&run).unwrap_err());
    assert!(error.contains("does not know") && error.contains("frobnicate"), "{error}");
}

#[test]
fn no_run_begins_over_one_that_is_not_undone() {
    let mut bench = Bench::new();
    let plan = bench.plan(&["a"]);
    bench.apply(false, &plan);
    let error = begin(&mut bench.journal, bench.dir.path(), &plan).unwrap_err().to_string();
    assert!(error.contains("run 1") && error.contains("rollback"), "{error}");
    assert_eq!(bench.journal.runs().unwrap().len(), 1);
}

/// A removal can be undone until something else begins, and not only until something else is tried.
#[test]
fn what_ends_here_ends_when_the_next_run_has_begun() {
    let mut bench = Bench::new();
    let plan = bench.plan(&["a"]);
    bench.apply(false, &Plan { ends_here: true, ..plan.clone() });
    let in_the_way = bench.dir.path().join("state/run-2.record-new");
    fs::create_dir(&in_the_way).unwrap();
    let backups = bench.dir.path().join("backups");
    begin(&mut bench.journal, &backups, &plan).unwrap_err();
    assert_eq!(bench.journal.current().unwrap().unwrap().state, RunState::Applied);
    fs::remove_dir(&in_the_way).unwrap();
    begin(&mut bench.journal, &backups, &plan).unwrap();
    let states: Vec<_> = bench.journal.runs().unwrap().into_iter().map(|run| run.state).collect();
    assert_eq!(states, [RunState::Final, RunState::Applying]);
    assert!(bench.dir.path().join("state/journal.reserve").exists());
}

/// Also when the next run died before it could say so.
#[test]
fn what_ends_here_ends_when_the_next_run_goes_on() {
    let mut bench = Bench::new();
    let plan = bench.plan(&["a"]);
    bench.apply(false, &Plan { ends_here: true, ..plan.clone() });
    bench.journal.begin(&plan.name, &plan.to_json().unwrap(), &["a"]).unwrap();
    let run = bench.journal.current().unwrap().unwrap();
    let (_, ended) = bench.run(false, |engine| engine.resume(&run));
    assert_eq!(ended, Ending::Applied);
    let states = |bench: &Bench| -> Vec<_> {
        bench.journal.runs().unwrap().into_iter().map(|run| run.state).collect()
    };
    assert_eq!(states(&bench), [RunState::Final, RunState::Applied]);
    // What goes on top of one leaves it as it is.
    let top = Plan { goes_on_top: true, ..plan.clone() };
    bench.journal.begin(&top.name, &top.to_json().unwrap(), &["a"]).unwrap();
    let run = bench.journal.current().unwrap().unwrap();
    bench.run(false, |engine| engine.resume(&run));
    assert_eq!(states(&bench), [RunState::Final, RunState::Applied, RunState::Applied]);
}

#[test]
fn backups_of_a_forgotten_run_are_not_added_to() {
    let mut bench = Bench::new();
    let old = bench.dir.path().join("backups/run-1");
    fs::create_dir_all(&old).unwrap();
    fs::write(old.join("owners"), "old").unwrap();
    let plan = bench.plan(&["a"]);
    bench.apply(false, &plan);
    assert!(!old.join("owners").exists());
    assert_eq!(fs::read_dir(bench.dir.path().join("backups")).unwrap().count(), 2, "it is kept aside");
}

/// Two steps write one file, as a unit is masked first and written later.
fn written_twice(bench: &Bench) -> Plan {
    let text = bench.plan(&["a", "b", "c"]).to_toml().unwrap();
    let (c, a) = (bench.file("c"), bench.file("a"));
    Plan::read(&text.replace(&c.display().to_string(), &a.display().to_string())).unwrap()
}

#[test]
fn nothing_is_undone_before_somebody_chose() {
    for (keep, left) in [(Keep::Theirs, Some("theirs")), (Keep::Ours, None)] {
        let mut bench = Bench::new();
        let plan = written_twice(&bench);
        bench.apply(false, &plan);
        fs::write(bench.file("a"), "theirs").unwrap();
        let run = bench.journal.current().unwrap().unwrap();
        let (seen, ended) = bench.run(false, |engine| engine.roll_back(&run));
        assert_eq!((seen.as_str(), ended), ("", Ending::Undecided));
        assert_eq!(bench.journal.current().unwrap().unwrap().state, RunState::Applied);
        let (seen, ended) = bench.run(false, |engine| {
            let found = engine.conflicts(&run)?;
            assert_eq!(found.len(), 1, "one path is one conflict: {found:?}");
            assert_eq!(
                (found[0].before.what.as_str(), found[0].ours.text.as_deref()),
                ("nothing", Some("c"))
            );
            engine.choose(&run, &[(found[0].clone(), keep)])?;
            engine.roll_back(&run)
        });
        assert_eq!((seen.as_str(), ended), ("c:undo b:undo a:undo", Ending::Undone));
        assert_eq!(fs::read_to_string(bench.file("a")).ok().as_deref(), left);
        let aside = bench.file("backups/run-1/put-aside-a");
        assert_eq!(fs::read_to_string(aside).ok().as_deref(), (keep == Keep::Ours).then_some("theirs"));
    }
}

#[test]
fn what_was_put_back_by_somebody_else_is_no_conflict() {
    let mut bench = Bench::new();
    let plan = written_twice(&bench);
    fs::write(bench.file("a"), "before").unwrap();
    bench.apply(false, &plan);
    fs::write(bench.file("a"), "before").unwrap();
    let run = bench.journal.current().unwrap().unwrap();
    let (_, ended) = bench.run(false, |engine| engine.roll_back(&run));
    assert_eq!((ended, bench.files()), (Ending::Undone, vec!["a".to_owned()]));
    assert_eq!(fs::read_to_string(bench.file("a")).unwrap(), "before");
}

#[test]
fn a_failing_run_does_not_undo_over_somebody_elses_change() {
    let mut bench = Bench::new();
    let plan = bench.plan(&["a", "bad"]);
    bench.apply(true, &plan);
    fs::write(bench.file("a"), "theirs").unwrap();
    let run = bench.journal.current().unwrap().unwrap();
    let (_, ended) = bench.run(false, |engine| engine.resume(&run));
    assert_eq!(ended, Ending::Stuck);
    assert_eq!(fs::read_to_string(bench.file("a")).unwrap(), "theirs");
}

/// Two runs write the same files; the later one counts, and what stood there before either is nobody's edit.
#[test]
fn of_what_two_steps_wrote_only_the_last_can_drift() {
    let mut bench = Bench::new();
    fs::write(bench.file("a"), "first").unwrap();
    let plan = bench.plan(&["a", "b"]);
    let over = Plan {
        goes_on_top: true,
        ..Plan::read(&plan.to_toml().unwrap().replace("text = \"a\"", "text = \"over\"")).unwrap()
    };
    bench.apply(false, &plan);
    bench.apply(false, &over);
    let mut drifts = || {
        let (recorder, cancelled) = (Recorder::default(), AtomicBool::new(false));
        let backups = bench.dir.path().join("backups");
        let engine = Engine {
            journal: &mut bench.journal,
            backups,
            observer: &recorder,
            cancelled: &cancelled,
            keep_partial: false,
            lost: None,
            work_places: &[],
        };
        let runs = engine.in_effect().unwrap();
        let told = |drifted: Drifted| (drifted.run, drifted.step.id, drifted.drift.conflict.is_some());
        engine.drifts(&runs).unwrap().into_iter().map(told).collect::<Vec<_>>()
    };
    let file = |name: &str| bench.dir.path().join(name);
    assert_eq!(drifts(), []);
    for (name, text, found) in [
        ("a", "a", Some((2, false))),
        ("a", "first", Some((2, false))),
        ("a", "edited", Some((2, true))),
        ("a", "over", None),
        ("b", "edited", Some((2, true))),
        ("b", "b", None),
    ] {
        fs::write(file(name), text).unwrap();
        let found: Vec<_> =
            found.map(|(run, conflict)| (run, name.to_owned(), conflict)).into_iter().collect();
        assert_eq!(drifts(), found, "{name} is {text:?}");
    }
    fs::remove_file(file("b")).unwrap();
    fs::set_permissions(file("a"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(drifts(), [(2, "a".to_owned(), false), (2, "b".to_owned(), false)]);
}

#[test]
fn a_choice_holds_for_what_was_seen_alone() {
    for keep in [Keep::Theirs, Keep::Ours] {
        let mut bench = Bench::new();
        let plan = bench.plan(&["a"]);
        bench.apply(false, &plan);
        fs::write(bench.file("a"), "theirs").unwrap();
        let run = bench.journal.current().unwrap().unwrap();
        let (seen, ended) = bench.run(false, |engine| {
            let found = engine.conflicts(&run)?;
            engine.choose(&run, &[(found[0].clone(), keep)])?;
            fs::write(&found[0].path, "yet another").unwrap();
            assert_eq!(engine.conflicts(&run)?.len(), 1, "it is asked for anew");
            engine.roll_back(&run)
        });
        assert_eq!((seen.as_str(), ended), ("", Ending::Undecided));
        assert_eq!(fs::read_to_string(bench.file("a")).unwrap(), "yet another");
    }
}
