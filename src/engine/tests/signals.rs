//! A signal in the middle of a run.

use super::*;

/// Sends a signal, as it were, when this step ends for the first time.
struct Signal<'a> {
    cancelled: &'a AtomicBool,
    step: &'static str,
    seen: Recorder,
}

impl Observer for Signal<'_> {
    fn note(&self, _: &str) {}
    fn advance(&self, _: u64, _: u64, _: &str) {}
}

impl RunObserver for Signal<'_> {
    fn step_begins(&self, _: Direction, _: usize, _: usize, _: &Step) {}

    fn step_ends(&self, direction: Direction, index: usize, step: &Step, ending: &StepEnding) {
        self.seen.step_ends(direction, index, step, ending);
        let ends = self.seen.0.lock().unwrap().iter().filter(|seen| seen.starts_with(self.step)).count();
        if step.id == self.step && ends == 1 {
            self.cancelled.store(true, Ordering::Relaxed);
        }
    }

    fn as_observer(&self) -> &dyn Observer {
        self
    }
}

/// Forward, what was done is undone, all of it; back, it stops, and a later rollback goes on.
#[test]
fn a_signal_stops_after_the_step() {
    for (is_back, events, ending) in [
        (false, "a:do b:do c:do-failed b:undo a:undo", Ending::FailedAndUndone),
        (true, "c:undo b:undo a:undo-failed", Ending::Stuck),
    ] {
        let mut bench = Bench::new();
        let plan = bench.plan(&["a", "b", "c"]);
        let backups = bench.dir.path().join("backups");
        if is_back {
            bench.apply(false, &plan);
        } else {
            begin(&mut bench.journal, &backups, &plan).unwrap();
        }
        let run = bench.journal.current().unwrap().unwrap();
        let cancelled = AtomicBool::new(false);
        let signal = Signal { cancelled: &cancelled, step: "b", seen: Recorder::default() };
        let mut engine = Engine {
            journal: &mut bench.journal,
            backups,
            observer: &signal,
            cancelled: &cancelled,
            keep_partial: false,
            lost: None,
            work_places: &[],
        };
        let ended = if is_back { engine.roll_back(&run) } else { engine.apply(run.id, &plan) };
        let seen = signal.seen.0.into_inner().unwrap().join(" ");
        assert_eq!((seen.as_str(), ended.unwrap()), (events, ending));
    }
}
