//! Printing: one JSON document or text on standard output, messages on standard error.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result};
use console::{Style, Term};

use crate::daemon::printable;
use crate::facts::Facts;
use crate::findings::{Finding, Severity};
use crate::plan::Plan;
use crate::report::{self, Document, Overview, Standing};
use crate::system::command::shell_words;

/// Where and how things are printed.
#[derive(Debug)]
pub struct Output {
    /// One JSON document is wanted.
    pub json: bool,
    /// More is wanted.
    pub verbose: bool,
}

impl Output {
    pub fn new(json: bool, no_color: bool, verbose: bool) -> Self {
        if no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            console::set_colors_enabled(false);
            console::set_colors_enabled_stderr(false);
        }
        Self { json, verbose }
    }

    /// A line on standard output, where no JSON is wanted.
    pub fn line(&self, text: &str) {
        if !self.json {
            // A reader that went away (`| head`) is no reason to stop a migration.
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }

    /// A text on standard output, JSON or not.
    pub fn raw(&self, text: &str) -> Result<()> {
        writeln!(std::io::stdout(), "{}", text.trim_end()).context("cannot write to standard output")
    }

    /// A line on standard error.
    pub fn message(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// An error, with the reasons behind it.
    pub fn error(&self, error: &anyhow::Error) {
        self.message(&format!("{} {error:#}", Style::new().red().bold().for_stderr().apply_to("error:")));
    }

    /// The JSON document, where one is wanted.
    pub fn document(&self, document: &impl Document) -> Result<()> {
        match self.json {
            true => self.raw(&report::to_json(document).context("cannot write JSON")?),
            false => Ok(()),
        }
    }

    /// Whether somebody can be asked.
    pub fn can_ask(&self) -> bool {
        std::io::stdin().is_terminal() && Term::stderr().is_term()
    }

    /// What comes first.
    pub fn overview(&self, overview: &Overview) {
        let style = match overview.standing {
            Standing::Good => Style::new().green().bold(),
            Standing::Doubtful => Style::new().yellow().bold(),
            Standing::Bad => Style::new().red().bold(),
        };
        self.line(&style.apply_to(overview.line()).to_string());
    }

    /// What was seen of the machine, as a table.
    pub fn machine(&self, facts: &Facts) {
        for row in report::machine(facts) {
            let name = Style::new().bold().apply_to(format!("{:<16}", row.name));
            self.line(&format!("{name} {}", row.value));
        }
    }

    /// Findings, blockers first, each with its remedy.
    pub fn findings(&self, findings: &[Finding]) {
        for finding in findings {
            let (word, style) = match finding.severity {
                _ if finding.accepted => ("accepted", Style::new().magenta()),
                Severity::Blocker => ("blocker", Style::new().red().bold()),
                Severity::Warning => ("warning", Style::new().yellow()),
                Severity::Info => ("info", Style::new().cyan()),
            };
            self.line(&format!("{} {} [{}]", style.apply_to(format!("{word}:")), finding.title, finding.key));
            self.line(&format!("    seen: {}", printable(&finding.seen)));
            if let Some(remedy) = &finding.remedy {
                self.line(&format!("    remedy: {remedy}"));
            }
            for command in &finding.commands {
                self.line(&format!("      {}", shell_words(command)));
            }
            match &finding.overridable {
                Some(because) if finding.accepted => self.line(&format!("    accepted: {because}")),
                Some(because) => self.line(&format!("    or --accept {}: {because}", finding.key)),
                None => {}
            }
        }
    }

    /// A plan in a few lines, before a question.
    pub fn plan_in_short(&self, plan: &Plan) {
        let undoable = if plan.is_undoable() {
            "each recorded and undoable"
        } else {
            "each recorded; the last cannot be undone"
        };
        self.line(&format!(
            "{}: {} steps, {undoable}",
            Style::new().bold().apply_to(&plan.summary),
            plan.steps.len()
        ));
        for (words, count) in plan.stages_in_order() {
            self.line(&format!("  - {words} ({count} {})", if count == 1 { "step" } else { "steps" }));
        }
        self.line(&format!(
            "(nix-unroot {} --dry-run shows what each step changes and how it is undone)",
            plan.name
        ));
    }

    /// A plan in words: each step with its reason, what it changes and how it is undone.
    pub fn plan(&self, plan: &Plan) {
        let bold = Style::new().bold();
        self.line(&format!("{} ({} steps)", bold.apply_to(&plan.summary), plan.steps.len()));
        for (index, step) in plan.steps.iter().enumerate() {
            self.line(&format!("{:>3}. {} - {}", index + 1, bold.apply_to(&step.id), step.why));
            self.line(&format!("     does:   {}", step.action.changes()));
            self.line(&format!("     undone: {}", step.action.undone_by()));
        }
    }
}
