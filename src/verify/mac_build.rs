//! A real build on a Mac, and who it was.

use super::build_report::BuildReport;
use super::build_uid;
use super::leftovers::Leftovers;
use super::{CheckError, Outcome, Target};
use crate::daemon::Connection;

/// What is built with: it tells its ids, and whether it can write to its input, which is this very file.
const BUILDER: &[u8] =
    b"#!/bin/sh\n{\n  echo \"Uid=$(/usr/bin/id -u)\"\n  echo \"Gid=$(/usr/bin/id -g)\"\n  \
    if ( : >>\"$0\" ) 2>/dev/null; then echo \"sees=$0, and may write to it\"; fi\n} >\"$out\"\n";
const REMEDY: &str = "builds need org.nix-unroot.build-broker, and a daemon that gives them to it (external-builders, which the gate sets): \
                      see what both say in /var/log/nix-unroot";

pub(super) fn check(target: &Target) -> Result<Outcome, CheckError> {
    let mut leftovers = Leftovers::new(&target.socket)?;
    let mut connection = Connection::open(&target.socket)?;
    let built = build_uid::run(&mut connection, BUILDER, &mut leftovers);
    drop(connection);
    // An error of the build comes first; then dropping cleans up.
    let outcome = match built? {
        Ok(report) => judge(target, &report),
        Err(reason) => Outcome::failed(reason, REMEDY),
    };
    leftovers.remove()?;
    Ok(outcome)
}

fn judge(target: &Target, report: &BuildReport) -> Outcome {
    let mut complaints = Vec::new();
    for (what, id, range) in [("uid", report.uid(), target.uids), ("gid", report.gid(), target.gids)] {
        match id {
            Some(id) if range.contains(id) && id != target.nix_uid => {}
            Some(id) => {
                let (first, last) = (range.start, range.last());
                complaints.push(format!("the build ran with {what} {id}, outside of {first} to {last}"));
            }
            None => complaints.push(format!("the build's {what} cannot be told")),
        }
    }
    complaints.extend(report.sees().map(|what| format!("the build could see {what}")));
    if report.owner != target.nix_uid {
        complaints.push(format!("its output belongs to uid {}, not {}", report.owner, target.nix_uid));
    }
    let number = |id: Option<u32>| id.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
    let seen = format!("a build ran with uid {}; nothing of it is left", number(report.uid()));
    Outcome::unless(&complaints, seen, REMEDY)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;
    use crate::types::SubidRange;

    #[test]
    fn what_the_builder_tells_is_judged() {
        let dir = tempfile::tempdir().unwrap();
        let (program, out) = (dir.path().join("builder"), dir.path().join("out"));
        fs::write(&program, BUILDER).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let status =
            Command::new(&program).env_clear().env("PATH", "/usr/bin:/bin").env("out", &out).status();
        assert!(status.unwrap().success());
        let report = BuildReport::read(&out).unwrap();
        let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
        assert_eq!((report.uid(), report.gid()), (Some(uid), Some(gid)));
        let range = |start| SubidRange { start, count: 1 };
        let target = |nix_uid, uid, gid| Target { gids: range(gid), ..Target::new(nix_uid, 1, range(uid)) };
        let outcome = judge(&target(uid, uid + 1, gid), &report);
        assert!(!outcome.passed && outcome.seen.contains("outside of"), "{}", outcome.seen);
        assert!(outcome.seen.contains("may write to it"), "it is its own file here: {}", outcome.seen);
        let outcome = judge(&target(uid + 7, uid, gid + 1), &report);
        assert!(
            outcome.seen.contains("gid") && outcome.seen.contains("its output belongs"),
            "{}",
            outcome.seen
        );
    }
}
