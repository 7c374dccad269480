//! Progress of a run: a line for each step and a bar for what takes long, on standard error.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use console::{Style, Term};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::log::{Event, Level, Log};
use crate::actions::Observer;
use crate::engine::{Direction, RunObserver, StepEnding};
use crate::plan::Step;
use crate::system::text::for_terminal;

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(120);

/// Tells a terminal, or a log, how a run goes.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    verbose: bool,
    log: Arc<Log>,
    began: Mutex<Instant>,
    touched: AtomicUsize,
}

impl Progress {
    pub fn new(verbose: bool, log: Arc<Log>) -> Self {
        let target = if log.is_json() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        Self { bar, verbose, log, began: Mutex::new(Instant::now()), touched: AtomicUsize::new(0) }
    }

    /// How many steps may have changed something: were done or undone, or failed on the way.
    pub fn touched(&self) -> usize {
        self.touched.load(Ordering::Relaxed)
    }

    fn say(&self, event: &Event) {
        self.log.tell_with(event, |text| {
            // Without a terminal the bar is hidden and would swallow the line.
            if Term::stderr().is_term() {
                self.bar.println(text);
            } else {
                // A log or a connection that went away is no reason to stop halfway.
                let _ = writeln!(std::io::stderr(), "{text}");
            }
        });
    }

    fn show(&self, template: &str, message: String) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        // A plan names its steps, and plans can be given.
        self.bar.set_message(for_terminal(&message));
    }
}

impl Observer for Progress {
    fn note(&self, text: &str) {
        let text = format!("    {} {text}", Style::new().yellow().for_stderr().apply_to("note:"));
        self.say(&Event::new("note", text).level(Level::Warning));
    }

    fn advance(&self, done: u64, total: u64, unit: &str) {
        if unit == "bytes" && total > 0 {
            self.bar.set_length(total.max(done));
            self.show(
                "  {spinner} {msg} [{bar:30}] {bytes}/{total_bytes} ({bytes_per_sec}, {eta})",
                self.bar.message(),
            );
        } else if total > 0 {
            self.bar.set_length(total.max(done));
            self.show("  {spinner} {msg} [{bar:30}] {pos}/{len} {prefix} ({per_sec})", self.bar.message());
        } else {
            self.show("  {spinner} {msg} {pos} {prefix} ({per_sec})", self.bar.message());
        }
        self.bar.set_prefix(unit.to_owned());
        self.bar.set_position(done);
    }
}

impl RunObserver for Progress {
    fn step_begins(&self, direction: Direction, index: usize, total: usize, step: &Step) {
        let verb = match direction {
            Direction::Forward => "",
            Direction::Back => "undoing ",
        };
        self.bar.reset();
        self.show("  {spinner} {msg}", format!("{:>2}/{total} {verb}{}", index + 1, step.id));
        self.bar.enable_steady_tick(TICK);
        if self.log.is_json() {
            // On a terminal the bar says so.
            let text = format!("{:>3} {verb}{}", index + 1, step.id);
            self.say(
                &Event::new("step", text)
                    .with("step", step.id.as_str())
                    .with("number", index + 1)
                    .with("of", total)
                    .with("result", "begins"),
            );
        }
        *self.began.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
    }

    fn step_ends(&self, direction: Direction, index: usize, step: &Step, ending: &StepEnding) {
        let elapsed = self.began.lock().unwrap_or_else(std::sync::PoisonError::into_inner).elapsed();
        let time = if elapsed > Duration::from_millis(500) {
            format!(" ({:.1} s)", elapsed.as_secs_f32())
        } else {
            String::new()
        };
        let green = Style::new().green().for_stderr();
        let red = Style::new().red().bold().for_stderr();
        let done = match direction {
            Direction::Forward => "done",
            Direction::Back => "undone",
        };
        let number = index + 1;
        let (text, result, level) = match ending {
            StepEnding::Done => {
                (format!("{number:>3} {} {}{time}", green.apply_to(done), step.id), done, Level::Info)
            }
            StepEnding::Skipped => {
                (format!("{number:>3} already so: {}", step.id), "already-so", Level::Info)
            }
            // The first error, at once, before any undoing can push it out of sight.
            StepEnding::Failed(error) => (
                format!("{number:>3} {} {}: {error:#}", red.apply_to("failed"), step.id),
                "failed",
                Level::Error,
            ),
        };
        let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let event = Event::new("step", text).level(level);
        self.say(
            &event
                .with("step", step.id.as_str())
                .with("number", number)
                .with("result", result)
                .with("ms", milliseconds),
        );
        if !matches!(ending, StepEnding::Skipped) {
            self.touched.fetch_add(1, Ordering::Relaxed);
        }
        if self.verbose && matches!(ending, StepEnding::Done) {
            let words = match direction {
                Direction::Forward => step.action.changes(),
                Direction::Back => step.action.undone_by(),
            };
            self.say(&Event::new("detail", format!("      {words}")).with("step", step.id.as_str()));
        }
    }

    fn as_observer(&self) -> &dyn Observer {
        self
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
