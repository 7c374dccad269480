//! The report as one page that needs nothing else: no script, no font, no network.

use askama::Template;

use super::about::About;
use super::drawing::{Drawing, drawings};
use super::machine::{Row, machine};
use super::overview::{Overview, Standing};
use crate::audit::{Danger, Hit};
use crate::facts::{Facts, Unread};
use crate::findings::{Finding, Severity};
use crate::plan::Plan;
use crate::system::command::shell_words;
use crate::system::text::shown;

/// What a page tells.
#[derive(Debug)]
pub struct Report<'a> {
    /// Which machine, and when.
    pub about: About,
    /// What comes first.
    pub overview: Overview,
    /// What was seen.
    pub facts: &'a Facts,
    /// What follows from that.
    pub findings: &'a [Finding],
    /// What would be done.
    pub plan: Option<&'a Plan>,
    /// Ways to root.
    pub audit: Vec<Ways<'a>>,
    /// What an audit could not read.
    pub unread: &'a [Unread],
}

/// Ways from somebody to root.
#[derive(Debug)]
pub struct Ways<'a> {
    /// From whom, in words: a heading.
    pub title: String,
    /// A sentence more; may be empty.
    pub note: String,
    /// The ways.
    pub hits: &'a [Hit],
}

/// The page.
///
/// # Errors
/// Never, for a template that compiled.
pub fn page(report: &Report<'_>) -> askama::Result<String> {
    let text = Page::of(report).render()?;
    // Names come from everywhere. The template escapes what HTML would take for its own; this is about what would move, hide or turn
    // around what is read.
    Ok(text.chars().map(|character| if character == '\n' { character } else { shown(character) }).collect())
}

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    title: String,
    about: &'a About,
    version: &'static str,
    standing: &'static str,
    overview: &'a Overview,
    groups: Vec<Group<'a>>,
    pictures: Vec<Drawing>,
    plan: Option<Steps<'a>>,
    audit: &'a [Ways<'a>],
    unread: &'a [Unread],
    rows: Vec<Row>,
}

impl<'a> Page<'a> {
    fn of(report: &'a Report<'_>) -> Self {
        let what = if report.audit.is_empty() { "report" } else { "audit" };
        Self {
            title: format!("nix-unroot {what}: {}", report.about.host),
            about: &report.about,
            version: env!("CARGO_PKG_VERSION"),
            standing: match report.overview.standing {
                Standing::Good => "good",
                Standing::Doubtful => "doubtful",
                Standing::Bad => "bad",
            },
            overview: &report.overview,
            groups: groups(report.findings),
            pictures: drawings(report.facts, report.plan),
            plan: report.plan.map(Steps::of),
            audit: &report.audit,
            unread: report.unread,
            rows: machine(report.facts),
        }
    }
}

/// Findings that weigh the same.
struct Group<'a> {
    class: &'static str,
    title: &'static str,
    note: &'static str,
    findings: Vec<&'a Finding>,
}

fn groups(findings: &[Finding]) -> Vec<Group<'_>> {
    let group = |class, title, note, wanted: fn(&Finding) -> bool| Group {
        class,
        title,
        note,
        findings: findings.iter().filter(|finding| wanted(finding)).collect(),
    };
    let all = [
        group("blocker", "Blockers", "Nothing is done until these are gone.", Finding::blocks),
        group("accepted", "Accepted", "These would block, and an administrator accepted them.", |finding| {
            finding.accepted
        }),
        group("warning", "Warnings", "Something will be different, or could be better.", |finding| {
            finding.severity == Severity::Warning
        }),
        group("info", "Good to know", "", |finding| finding.severity == Severity::Info),
    ];
    all.into_iter().filter(|group| !group.findings.is_empty()).collect()
}

fn pasted(command: &[String]) -> String {
    shell_words(command)
}

fn danger(hit: &Hit) -> &'static str {
    match hit.danger {
        Danger::High => "high",
        Danger::Medium => "medium",
        Danger::Low => "low",
    }
}

/// The plan by its stages.
struct Steps<'a> {
    plan: &'a Plan,
    stages: Vec<Stage<'a>>,
}

struct Stage<'a> {
    words: &'a str,
    steps: Vec<Step<'a>>,
}

struct Step<'a> {
    number: usize,
    id: &'a str,
    why: &'a str,
    does: String,
    undone: String,
}

impl<'a> Steps<'a> {
    fn of(plan: &'a Plan) -> Self {
        let mut all = plan.steps.iter().enumerate().map(|(index, step)| Step {
            number: index + 1,
            id: &step.id,
            why: &step.why,
            does: step.action.changes(),
            undone: step.action.undone_by(),
        });
        let stages = plan.stages_in_order();
        let stages = stages
            .into_iter()
            .map(|(words, count)| Stage { words, steps: all.by_ref().take(count).collect() });
        Self { plan, stages: stages.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::sample::debian_sample;
    use crate::findings::{Options, collect};

    fn about(host: &str) -> About {
        About { host: host.to_owned(), time: "2026-11-21 16:05 UTC".to_owned() }
    }

    #[test]
    fn hostile_names_are_text() {
        let evil = "</dd></style><script>alert(1)</script>\"'&\u{202e}\u{1b}[2J";
        let mut facts = debian_sample();
        facts.shell_snippets[0].path = evil.into();
        facts.processes[0].command = evil.to_owned();
        facts.nix_conf[0].settings = Some(vec![("post-build-hook".to_owned(), evil.to_owned())]);
        facts.units[0].user = Some(evil.to_owned());
        facts.groups[0].name = evil.to_owned();
        let findings = collect(&facts, &Options::default());
        let plan = Plan::make(&facts, &crate::plan::Options::default()).unwrap();
        let hits = [Hit {
            key: "key".to_owned(),
            danger: Danger::High,
            name: evil.into(),
            named_by: Some(evil.into()),
            chain: vec![evil.to_owned()],
            trigger: evil.to_owned(),
            remedy: evil.to_owned(),
            fix: None,
        }];
        let text = page(&Report {
            about: about(evil),
            overview: Overview::of_findings(&findings, false, Some(&plan)),
            facts: &facts,
            findings: &findings,
            plan: Some(&plan),
            audit: vec![Ways { title: evil.to_owned(), note: evil.to_owned(), hits: &hits }],
            unread: &[Unread { what: evil.to_owned(), why: evil.to_owned() }],
        })
        .unwrap();
        assert!(text.matches("alert(1)").count() > 10, "it is told");
        assert!(!text.contains("<script") && text.matches("</style>").count() == 1, "as text");
        assert!(!text.contains(|character: char| character.is_control() && character != '\n'));
        assert!(!text.contains('\u{202e}'));
    }

    #[test]
    fn a_page_tells_findings_plan_and_both_pictures() {
        let facts = debian_sample();
        let findings = collect(&facts, &Options::default());
        let plan = Plan::make(&facts, &crate::plan::Options::default()).unwrap();
        let overview = Overview::of_findings(&findings, false, Some(&plan));
        let (audit, unread) = (vec![], &[][..]);
        let report = Report {
            about: about("h"),
            overview,
            facts: &facts,
            findings: &findings,
            plan: Some(&plan),
            audit,
            unread,
        };
        let text = page(&report).unwrap();
        for finding in &findings {
            assert!(text.contains(&format!("id=\"{}\"", finding.key)), "{}", finding.key);
        }
        for step in &plan.steps {
            assert!(text.contains(&format!("<code>{}</code>", step.id)), "{}", step.id);
        }
        assert_eq!(text.matches("<svg ").count(), 2);
        assert_eq!(page(&report).unwrap(), text, "the same report gives the same page");
        let now = page(&Report { plan: None, ..report }).unwrap();
        assert_eq!(now.matches("<svg ").count(), 1);
    }
}
