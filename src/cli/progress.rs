//! Progress of a run: a line for each step and a bar for what takes long, on standard error.

use std::io::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use console::{Style, Term};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::actions::Observer;
use crate::engine::{Direction, RunObserver, StepEnding};
use crate::plan::Step;

/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(120);

/// Tells a terminal, or a log, how a run goes.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    verbose: bool,
    began: Mutex<Instant>,
}

impl Progress {
    pub fn new(verbose: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self { bar, verbose, began: Mutex::new(Instant::now()) }
    }

    fn say(&self, text: &str) {
        // Without a terminal the bar is hidden and would swallow the line.
        if Term::stderr().is_term() {
            self.bar.println(text);
        } else {
            // A log or a connection that went away is no reason to stop halfway.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    fn show(&self, template: &str, message: String) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_message(message);
    }
}

impl Observer for Progress {
    fn note(&self, text: &str) {
        self.say(&format!("    {} {text}", Style::new().yellow().for_stderr().apply_to("note:")));
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
        match ending {
            StepEnding::Done => self.say(&format!("{number:>3} {} {}{time}", green.apply_to(done), step.id)),
            StepEnding::Skipped => self.say(&format!("{number:>3} already so: {}", step.id)),
            // The first error, at once, before any undoing can push it out of sight.
            StepEnding::Failed(error) => {
                self.say(&format!("{number:>3} {} {}: {error:#}", red.apply_to("failed"), step.id))
            }
        }
        if self.verbose && matches!(ending, StepEnding::Done) {
            let words = match direction {
                Direction::Forward => step.action.changes(),
                Direction::Back => step.action.undone_by(),
            };
            self.say(&format!("      {words}"));
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
