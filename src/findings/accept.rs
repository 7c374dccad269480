//! Blockers that an administrator may accept: those of which going on costs at most the time of an attempt that is undone.
//!
//! Whatever could lose a store path, a GC root, a trust rule or the way back, or give somebody more rights, is not here and never
//! becomes acceptable: a Nix that cannot ask a root scanner, a damaged database, files that somebody else's configuration owns, an
//! account that a person logs in with, no room for what an undoing needs.

/// A blocker that may be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overridable {
    /// The finding.
    pub key: &'static str,
    /// Why going on is safe, and what it may cost.
    pub because: &'static str,
}

/// All that may be accepted.
pub const OVERRIDABLE: &[Overridable] = &[
    // The step `drain` fails when they do not end in time, before anything changed hands.
    Overridable {
        key: "builds-running-too-long",
        because: "running builds are waited for as long as --drain-timeout says; when they do not end by then, everything is undone and they \
                  go on",
    },
    // The plan leaves out the entry that it cannot make (`plan/context.rs`); sandboxed builds need none.
    Overridable {
        key: "store-without-access-lists",
        because: "sandboxed builds work all the same; a build that runs without a sandbox fails, and changes nothing",
    },
    // The last step does a real build, and fails without a user namespace; `sandbox-fallback` is off.
    Overridable {
        key: "userns-impossible",
        because: "a process without privileges tried, and the daemon may be allowed what that was not; a real build proves it at the end, and \
                  when it fails, everything is undone",
    },
];

/// A key was accepted that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key:?} {why}; these can be accepted: {}", OVERRIDABLE.iter().map(|row| row.key).collect::<Vec<_>>().join(", "))]
pub struct NotOverridable {
    /// The key.
    pub key: String,
    why: &'static str,
}

/// Whether all these keys can be accepted, also on a machine that has no such finding.
///
/// # Errors
/// For the first that cannot.
pub fn check_accepted(keys: &[String]) -> Result<(), NotOverridable> {
    let Some(key) = keys.iter().find(|key| !OVERRIDABLE.iter().any(|row| row.key == **key)) else {
        return Ok(());
    };
    let why = match super::checks().find(|check| check.key == key).map(|check| check.severity) {
        None => "is no finding",
        Some(super::Severity::Blocker) => "must be mended: going on in spite of it is not safe",
        Some(_) => "does not block, so there is nothing to accept",
    };
    Err(NotOverridable { key: key.clone(), why })
}

#[cfg(test)]
mod tests {
    use super::super::{Options, Severity, checks, collect};
    use super::*;
    use crate::facts::sample::debian_sample;

    #[test]
    fn what_can_be_accepted_is_a_blocker_that_exists() {
        for row in OVERRIDABLE {
            let check = checks().find(|check| check.key == row.key).unwrap();
            assert_eq!(check.severity, Severity::Blocker, "{}", row.key);
            assert!(row.because.len() > 40, "{}", row.key);
        }
    }

    #[test]
    fn an_accepted_blocker_stays_visible_and_blocks_no_more() {
        let mut facts = debian_sample();
        facts.user_namespaces.probe = Err("no".to_owned());
        facts.mounts[0].read_only = true;
        let mut options = Options::default();
        assert!(collect(&facts, &options).iter().all(|finding| !finding.accepted));
        options.accept = vec!["userns-impossible".to_owned(), "store-read-only".to_owned()];
        let found = collect(&facts, &options);
        let of = |key: &str| found.iter().position(|finding| finding.key == key).unwrap();
        let (accepted, other) = (of("userns-impossible"), of("store-read-only"));
        assert!(found[accepted].accepted && !found[accepted].blocks());
        assert!(found[other].blocks() && found[other].overridable.is_none(), "only what is in the table");
        assert!(other < accepted && found[accepted].severity == Severity::Blocker);
    }

    #[test]
    fn another_key_is_refused_with_those_that_can_be() {
        let said = |key: &str| check_accepted(&[key.to_owned()]).unwrap_err().to_string();
        for (key, part) in [
            ("nix-too-old", "must be mended"),
            ("sandbox-off", "nothing to accept"),
            ("userns-imposible", "is no finding"),
            ("", "is no finding"),
        ] {
            let said = said(key);
            assert!(said.contains(part) && said.contains("builds-running-too-long"), "{said}");
        }
        assert_eq!(
            check_accepted(&OVERRIDABLE.iter().map(|row| row.key.to_owned()).collect::<Vec<_>>()),
            Ok(())
        );
        assert_eq!(check_accepted(&[]), Ok(()));
    }
}
