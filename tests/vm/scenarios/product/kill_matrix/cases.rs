//! Which kills there are, and which of them are tried together.

use super::undisturbed::Undisturbed;
use std::collections::VecDeque;

/// Which way a run went when it was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    There,
    Back,
}

/// A kill, and what follows it.
#[derive(Clone, Debug)]
pub struct Case {
    pub way: Way,
    pub instant: String,
    pub recovery: &'static str,
    /// Chooses the delay of a kill inside a command, and whether a recovery is killed at a time, too.
    pub number: usize,
    /// Nothing before the instant is for good.
    pub revocable: bool,
}

impl Case {
    /// Whether the journal knows by then that the run, or its undoing, has begun. Before that there is nothing to go on with.
    pub fn is_recorded(&self) -> bool {
        !self.instant.starts_with("run:begin:") && !self.instant.ends_with(":looked-for-conflicts")
    }

    /// Whether the run goes to its end all the same, and does not turn back.
    fn goes_on(&self) -> bool {
        self.way == Way::There && (self.recovery == "resume" || !self.revocable)
    }
}

/// All cases of a journey: both recoveries from each instant, in the order of the instants.
pub fn of(undisturbed: &Undisturbed) -> Vec<Case> {
    let there = undisturbed.there.iter().map(|instant| (Way::There, instant));
    let back = undisturbed.back.iter().map(|instant| (Way::Back, instant));
    let both = there.enumerate().chain(back.enumerate());
    both.flat_map(|(index, (way, instant))| {
        ["resume", "rollback"].map(|recovery| (way, instant.clone(), recovery, index))
    })
    .enumerate()
    .map(|(number, (way, instant, recovery, index))| {
        let revocable = way == Way::Back || index < undisturbed.revocable;
        Case { way, instant, recovery, number, revocable }
    })
    .collect()
}

/// What is tried on a machine that is as it was before, and leaves it so. Of several kills in one direction, what recovers from one
/// dies at the next, and what recovers from the last gets through.
#[derive(Clone, Debug)]
pub enum Round {
    /// A kill on the way there, and back from it.
    Half(Case),
    /// Kills on the way there that do not keep the run from its end, and kills on the way back.
    Whole(Vec<Case>, Vec<Case>),
}

impl Round {
    /// A round for this case alone.
    pub fn alone(case: Case) -> Self {
        match case.way {
            Way::There if case.goes_on() => Self::Whole(vec![case], vec![]),
            Way::There => Self::Half(case),
            Way::Back => Self::Whole(vec![], vec![case]),
        }
    }
}

/// Rounds of up to `length` kills each way. From the end of a run that `is_final` nothing leads back.
pub fn rounds(cases: Vec<Case>, is_final: bool, length: usize) -> VecDeque<Round> {
    let (onward, rest): (Vec<_>, Vec<_>) = cases.into_iter().partition(Case::goes_on);
    let (back, half): (Vec<_>, Vec<_>) = rest.into_iter().partition(|case| case.way == Way::Back);
    let half = half.into_iter().map(Round::Half);
    let (mut onward, mut back) = (chains(&onward, length).into_iter(), chains(&back, length).into_iter());
    if is_final {
        let back = back.map(|back| Round::Whole(vec![], back));
        return back.chain(half).chain(onward.map(|there| Round::Whole(there, vec![]))).collect();
    }
    let whole = std::iter::from_fn(move || match (onward.next(), back.next()) {
        (None, None) => None,
        (there, back) => Some(Round::Whole(there.unwrap_or_default(), back.unwrap_or_default())),
    });
    whole.chain(half).collect()
}

/// Chains of up to `length` cases in their order, as far from each other as can be: an instant inside a step may not come again
/// when the step is done anew.
fn chains(cases: &[Case], length: usize) -> Vec<Vec<Case>> {
    let count = cases.len().div_ceil(length.max(1));
    (0..count).map(|first| cases.iter().skip(first).step_by(count).cloned().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_case_is_in_one_round() {
        let case = |number: usize| Case {
            way: if number < 50 { Way::There } else { Way::Back },
            instant: (number / 2).to_string(),
            recovery: ["resume", "rollback"][number % 2],
            number,
            revocable: number < 30,
        };
        for (length, is_final) in [(1, false), (7, false), (7, true), (1000, false)] {
            let mut seen = BTreeSet::new();
            for round in rounds((0..90).map(case).collect(), is_final, length) {
                let cases = match round {
                    Round::Half(case) => {
                        assert!(case.recovery == "rollback" && case.number < 30, "{case:?}");
                        vec![case]
                    }
                    Round::Whole(there, back) => {
                        assert!(there.len() <= length && back.len() <= length);
                        assert!(!is_final || there.is_empty() || back.is_empty());
                        assert!(there.iter().chain(&back).is_sorted_by_key(|case| case.number));
                        there.into_iter().chain(back).collect()
                    }
                };
                cases.iter().for_each(|case| assert!(seen.insert(case.number), "twice: {case:?}"));
            }
            assert_eq!(seen.len(), 90);
        }
    }
}
