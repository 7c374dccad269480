//! The report as one page that needs nothing else: no script, no font, no network.

use askama::Template;

use super::about::About;
use super::machine::{Row, machine};
use super::overview::{Overview, Standing};
use super::picture::{self, Actor, Level, Owned, Scene};
use crate::audit::{Danger, Hit};
use crate::daemon::shown;
use crate::facts::{Facts, Unread};
use crate::findings::{Finding, Severity};
use crate::plan::Plan;
use crate::system::command::shell_words;

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
            pictures: drawings(report),
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

/// A scene with places for everything, in a box that is [`WIDTH`] units wide.
struct Drawing {
    id: &'static str,
    title: String,
    words: String,
    height: usize,
    arrows: Vec<usize>,
    actors: Vec<(usize, Label, Actor)>,
    owners_at: usize,
    owned: Vec<(usize, Label, Owned)>,
}

/// An account in a coloured box at the right.
struct Label {
    class: &'static str,
    x: usize,
    width: usize,
    text: String,
}

const WIDTH: usize = 440;
/// Of a part of the work, and the way to the next.
const ACTOR_HEIGHT: usize = 78;
const GAP: usize = 22;
const LINE: usize = 32;
/// Characters that fit beside each other.
const LONGEST_ACCOUNT: usize = 30;
const LONGEST_RIGHTS: usize = 58;

fn drawings(report: &Report<'_>) -> Vec<Drawing> {
    let before = picture::now(report.facts);
    let after = report.plan.and_then(|plan| picture::after(report.facts, plan));
    let title = if after.is_some() { "Before" } else { "Now" };
    let mut drawings = vec![Drawing::of("before", title, before)];
    drawings.extend(after.map(|scene| Drawing::of("after", "After", scene)));
    drawings.retain(|drawing| !drawing.actors.is_empty() || !drawing.owned.is_empty());
    drawings
}

impl Drawing {
    fn of(id: &'static str, title: &str, scene: Scene) -> Self {
        let words = scene
            .actors
            .iter()
            .map(|actor| {
                format!("{}: {}, as {}, with {}.", actor.role, actor.program, actor.account, actor.rights)
            })
            .chain(scene.owned.iter().map(|owned| format!("{} belongs to {}.", owned.path, owned.owner)));
        let words = words.collect::<Vec<_>>().join(" ");
        let place = |index: usize| index * (ACTOR_HEIGHT + GAP);
        let owners_at = place(scene.actors.len()) + 8;
        let actors: Vec<_> = scene
            .actors
            .into_iter()
            .enumerate()
            .map(|(index, mut actor)| {
                let label = Label::of(actor.level, &actor.account);
                actor.rights = cut(&actor.rights, LONGEST_RIGHTS);
                // A bold letter of 15 px is less than 10 wide.
                actor.program = cut(&actor.program, label.x.saturating_sub(28) / 10);
                (place(index), label, actor)
            })
            .collect();
        let owned: Vec<_> = scene
            .owned
            .into_iter()
            .enumerate()
            .map(|(index, owned)| {
                (owners_at + 20 + index * LINE, Label::of_owner(owned.level, &owned.owner), owned)
            })
            .collect();
        Self {
            id,
            title: title.to_owned(),
            words,
            height: owners_at + 20 + owned.len() * LINE,
            arrows: (1..actors.len()).map(|index| place(index) - GAP).collect(),
            actors,
            owners_at,
            owned,
        }
    }
}

impl Label {
    fn of(level: Level, text: &str) -> Self {
        let class = match level {
            Level::Root => "root",
            Level::Some => "some",
            Level::None => "none",
        };
        Self::in_class(class, text)
    }

    /// Of an owner: not a question of rights, so in other colours.
    fn of_owner(level: Level, text: &str) -> Self {
        Self::in_class(if level == Level::Root { "kept" } else { "handed" }, text)
    }

    fn in_class(class: &'static str, text: &str) -> Self {
        let text = cut(text, LONGEST_ACCOUNT);
        // A monospaced letter of 12.5 px is 7.5 wide.
        let width = text.chars().count() * 15 / 2 + 22;
        Self { class, x: WIDTH - 12 - width, width, text }
    }
}

fn cut(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    text.chars().take(longest.saturating_sub(1)).chain(['…']).collect()
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

    #[test]
    fn what_is_too_long_is_cut_where_it_would_not_fit() {
        let label = Label::of(Level::None, &"x".repeat(200));
        assert!(label.x < WIDTH && label.x + label.width <= WIDTH && label.text.ends_with('…'));
        assert_eq!(cut("short", 5), "short");
    }
}
