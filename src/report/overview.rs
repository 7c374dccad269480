//! What comes first in every report: how it stands, in a sentence and some numbers.

use crate::audit::{Danger, Hit};
use crate::findings::{Finding, Severity};
use crate::plan::Plan;

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is to be done, or nothing stands in the way.
    Good,
    /// Something should be looked at.
    Doubtful,
    /// Something is in the way, or open.
    Bad,
}

/// The summary of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// How it stands.
    pub standing: Standing,
    /// The same in a sentence.
    pub sentence: String,
    /// Numbers with their words, the weightiest first.
    pub numbers: Vec<(usize, &'static str)>,
}

impl Overview {
    /// The same in one line.
    pub fn line(&self) -> String {
        let numbers: Vec<_> = self.numbers.iter().map(|(count, words)| format!("{count} {words}")).collect();
        format!("{} ({})", self.sentence, numbers.join(", "))
    }

    /// Of findings, and of the plan where there is one.
    pub fn of_findings(findings: &[Finding], migrated: bool, plan: Option<&Plan>) -> Self {
        let count =
            |wanted: &dyn Fn(&Finding) -> bool| findings.iter().filter(|finding| wanted(finding)).count();
        let blockers = count(&|finding| finding.blocks());
        let accepted = count(&|finding| finding.accepted);
        let warnings = count(&|finding| finding.severity == Severity::Warning);
        let (standing, sentence) = match (migrated, blockers) {
            (true, _) => (Standing::Good, "Nix runs unprivileged here: there is nothing to do".to_owned()),
            (false, 0) => {
                let what = match plan.map(|plan| plan.name.as_str()) {
                    Some("install") => "Nix can be installed unprivileged",
                    _ => "this machine can be migrated",
                };
                let doubt = warnings + accepted > 0;
                let (standing, after) = match doubt {
                    true => (Standing::Doubtful, "read the warnings first"),
                    false => (Standing::Good, "nothing stands in the way"),
                };
                (standing, format!("{what}: {after}"))
            }
            (false, 1) => (Standing::Bad, "a blocker stands in the way".to_owned()),
            (false, _) => (Standing::Bad, format!("{blockers} blockers stand in the way")),
        };
        let mut numbers = vec![(blockers, if blockers == 1 { "blocker" } else { "blockers" })];
        if accepted > 0 {
            numbers.push((accepted, "accepted"));
        }
        numbers.push((warnings, if warnings == 1 { "warning" } else { "warnings" }));
        numbers.push((count(&|finding| finding.severity == Severity::Info), "to know"));
        if let Some(plan) = plan {
            numbers.push((plan.steps.len(), "steps"));
        }
        Self { standing, sentence, numbers }
    }

    /// Of an audit's hits.
    pub fn of_audit(hits: &[Hit], subject: &str) -> Self {
        let count = |danger| hits.iter().filter(|hit| hit.danger == danger).count();
        let standing = match hits.iter().map(|hit| hit.danger).max() {
            None => Standing::Good,
            Some(Danger::High) => Standing::Bad,
            Some(_) => Standing::Doubtful,
        };
        let ways = match hits.len() {
            0 => "no way".to_owned(),
            1 => "1 way".to_owned(),
            many => format!("{many} ways"),
        };
        let numbers = [
            (Danger::High, "of high danger"),
            (Danger::Medium, "of medium danger"),
            (Danger::Low, "of low danger"),
        ];
        Self {
            standing,
            sentence: format!("{ways} from {subject} to root"),
            numbers: numbers.map(|(danger, words)| (count(danger), words)).to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::sample::debian_sample;
    use crate::findings::{Options, collect};

    #[test]
    fn the_sentence_says_what_follows() {
        let (mut facts, mut options) = (debian_sample(), Options::default());
        let line = |findings: &[Finding]| Overview::of_findings(findings, false, None).line();
        assert_eq!(
            line(&collect(&facts, &options)),
            "this machine can be migrated: nothing stands in the way (0 blockers, 0 warnings, 2 to know)"
        );
        facts.user_namespaces.probe = Err("no".to_owned());
        let blocked = Overview::of_findings(&collect(&facts, &options), false, None);
        assert_eq!((blocked.standing, blocked.numbers[0]), (Standing::Bad, (1, "blocker")));
        options.accept = vec!["userns-impossible".to_owned()];
        let accepted = Overview::of_findings(&collect(&facts, &options), false, None);
        assert_eq!(
            (accepted.standing, &accepted.numbers[..2]),
            (Standing::Doubtful, &[(0, "blockers"), (1, "accepted")][..])
        );
        assert_eq!(Overview::of_findings(&[], true, None).standing, Standing::Good);
    }
}
