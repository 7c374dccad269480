//! Printing: one JSON document or text on standard output, messages on standard error.

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use anyhow::{Context, Result};
use console::{Style, Term};

use super::log::{Event, Level, Log};
use crate::facts::Facts;
use crate::findings::{Finding, Severity};
use crate::plan::Plan;
use crate::report::{self, Document, Overview, Standing};
use crate::system::command::shell_words;
use crate::system::text::for_terminal;
use crate::system::text::printable;

/// Where and how things are printed.
#[derive(Debug)]
pub struct Output {
    /// One JSON document is wanted.
    pub json: bool,
    /// More is wanted.
    pub verbose: bool,
    /// Where messages go.
    pub log: Arc<Log>,
}

impl Output {
    pub fn new(json: bool, no_color: bool, verbose: bool, log: Log) -> Self {
        if no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            console::set_colors_enabled(false);
            console::set_colors_enabled_stderr(false);
        }
        Self { json, verbose, log: Arc::new(log) }
    }

    /// A line on standard output, where no JSON is wanted.
    pub fn line(&self, text: &str) {
        if !self.json {
            // A reader that went away (`| head`) is no reason to stop a migration.
            let _ = writeln!(std::io::stdout(), "{}", for_terminal(text));
        }
    }

    /// A text on standard output, JSON or not: one that is encoded, or ours from end to end.
    pub fn raw(&self, text: &str) -> Result<()> {
        writeln!(std::io::stdout(), "{}", text.trim_end()).context("cannot write to standard output")
    }

    /// A line on standard error.
    pub fn message(&self, text: &str) {
        self.log.tell(&Event::new("message", text));
    }

    /// An error, with the reasons behind it.
    pub fn error(&self, error: &anyhow::Error) {
        let text = format!("{} {error:#}", Style::new().red().bold().for_stderr().apply_to("error:"));
        self.log.tell(&Event::new("error", text).level(Level::Error));
    }

    /// What a person reads before an answer, or would have read where none is asked for: on standard output, or among the messages
    /// where that is for a document or the messages are for machines.
    pub fn tell(&self, event: &Event) {
        if self.json || self.log.is_json() {
            return self.log.tell(event);
        }
        self.line(event.text());
        self.log.keep(event);
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

    /// Findings, blockers first, each with its remedy, where nothing else is printed.
    pub fn findings(&self, findings: &[Finding]) {
        findings.iter().for_each(|finding| self.line(&finding_text(finding)));
    }

    /// The same before a change.
    pub fn tell_findings(&self, findings: &[Finding]) {
        for finding in findings {
            let level = match finding.severity {
                Severity::Blocker if !finding.accepted => Level::Error,
                Severity::Blocker | Severity::Warning => Level::Warning,
                Severity::Info => Level::Info,
            };
            self.tell(
                &Event::new("finding", finding_text(finding)).level(level).with("key", finding.key.as_str()),
            );
        }
    }

    /// A plan in a few lines, before a question.
    pub fn plan_in_short(&self, plan: &Plan) {
        let undoable = if plan.is_undoable() {
            "each recorded and undoable"
        } else {
            "each recorded; the last cannot be undone"
        };
        let mut lines = vec![format!(
            "{}: {} steps, {undoable}",
            Style::new().bold().apply_to(&plan.summary),
            plan.steps.len()
        )];
        for (words, count) in plan.stages_in_order() {
            lines.push(format!("  - {words} ({count} {})", if count == 1 { "step" } else { "steps" }));
        }
        lines.push(format!(
            "(nix-unroot {} --dry-run shows what each step changes and how it is undone)",
            plan.name
        ));
        self.tell(&Event::new("plan", lines.join("\n")).with("plan", plan.name.as_str()));
    }

    /// A plan in words: each step with its reason, what it changes and how it is undone.
    pub fn plan(&self, plan: &Plan) {
        self.line(&plan_text(plan));
    }

    /// The same before a change.
    pub fn tell_plan(&self, plan: &Plan) {
        self.tell(&Event::new("plan", plan_text(plan)).with("plan", plan.name.as_str()));
    }
}

fn finding_text(finding: &Finding) -> String {
    let (word, style) = match finding.severity {
        _ if finding.accepted => ("accepted", Style::new().magenta()),
        Severity::Blocker => ("blocker", Style::new().red().bold()),
        Severity::Warning => ("warning", Style::new().yellow()),
        Severity::Info => ("info", Style::new().cyan()),
    };
    let mut lines = vec![
        format!("{} {} [{}]", style.apply_to(format!("{word}:")), finding.title, finding.key),
        format!("    seen: {}", printable(&finding.seen)),
    ];
    lines.extend(finding.remedy.iter().map(|remedy| format!("    remedy: {remedy}")));
    lines.extend(finding.commands.iter().map(|command| format!("      {}", shell_words(command))));
    lines.extend(finding.overridable.as_ref().map(|because| match finding.accepted {
        true => format!("    accepted: {because}"),
        false => format!("    or --accept {}: {because}", finding.key),
    }));
    lines.join("\n")
}

fn plan_text(plan: &Plan) -> String {
    let bold = Style::new().bold();
    let mut lines = vec![format!("{} ({} steps)", bold.apply_to(&plan.summary), plan.steps.len())];
    for (index, step) in plan.steps.iter().enumerate() {
        lines.push(format!("{:>3}. {} - {}", index + 1, bold.apply_to(&step.id), step.why));
        lines.push(format!("     does:   {}", step.action.changes()));
        lines.push(format!("     undone: {}", step.action.undone_by()));
    }
    lines.join("\n")
}
