//! Lists for people, and for `nix-unroot roots`: one line for each root, fields separated by tabs, hostile names escaped.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::doubt::printable;
use crate::memory::{Memory, Remembered};
use crate::roots::Place;
use crate::store_path::StorePath;

/// Store path and place.
pub fn short(path: &StorePath, place: &Place) -> String {
    let lost = place.lost.map_or(String::new(), |time| format!(" (remembered; not seen since {time})"));
    format!("{path}\t{}{lost}", printable(&place.path))
}

/// Store path; kind (`process`, `kernel`, `link`, `indirect`, `remembered`); uid of the owner; since when it cannot be seen,
/// in seconds since 1970; place. `-` stands for what is not known or does not apply.
pub fn long(path: &StorePath, place: &Place, proc: &Path) -> String {
    let (kind, owner) = match place.path.strip_prefix(proc) {
        Ok(below) => match below.iter().next().and_then(|name| name.to_str()?.parse::<u32>().ok()) {
            Some(pid) => ("process", uid_of(&proc.join(pid.to_string()))),
            None => ("kernel", Some(0)),
        },
        Err(_) if place.path.starts_with("/sys") => ("kernel", Some(0)),
        Err(_) if place.lost.is_some() => ("remembered", place.owner),
        Err(_) if place.owner.is_some() => ("indirect", place.owner),
        Err(_) => ("link", fs::symlink_metadata(&place.path).ok().map(|status| status.uid())),
    };
    format!("{path}\t{kind}\t{}\t{}\t{}", known(owner), known(place.lost), printable(&place.path))
}

/// The same for all that is remembered; `indirect` are those that were seen in the last scan.
pub fn remembered(memory: &Memory) -> impl Iterator<Item = String> {
    memory.all().map(|(link, root)| {
        let Remembered { target, path, owner, lost, .. } = root;
        let kind = if lost.is_some() { "remembered" } else { "indirect" };
        let (link, target) = (printable(link), printable(target));
        format!("{path}\t{kind}\t{owner}\t{}\t{link} -> {target}", known(*lost))
    })
}

/// The real uid. Not the owner of its directory: that is root's for a process that may not be dumped.
fn uid_of(process: &Path) -> Option<u32> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.parse().ok()
}

fn known(value: Option<impl Display>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_kind_and_owner() {
        let path = StorePath::from_base_name(format!("{}-a", "a".repeat(32)).as_bytes()).unwrap();
        let me = format!("/proc/{}/cwd", std::process::id());
        let uid = uid_of(Path::new("/proc/self")).unwrap();
        for (place, owner, lost, expected) in [
            (me.as_str(), None, None, format!("process\t{uid}\t-\t{me}")),
            ("/proc/0/cwd", None, None, "process\t-\t-\t/proc/0/cwd".to_owned()),
            ("/proc/swaps", None, None, "kernel\t0\t-\t/proc/swaps".to_owned()),
            (
                "/sys/block/loop0/loop/backing_file",
                None,
                None,
                "kernel\t0\t-\t/sys/block/loop0/loop/backing_file".to_owned(),
            ),
            ("/a -> /b\n", Some(7), None, "indirect\t7\t-\t/a -> /b\\n".to_owned()),
            ("/a -> /b", Some(7), Some(9), "remembered\t7\t9\t/a -> /b".to_owned()),
            ("/proc/self/x", None, None, "kernel\t0\t-\t/proc/self/x".to_owned()),
            ("/none", None, None, "link\t-\t-\t/none".to_owned()),
        ] {
            let place = Place { path: place.into(), owner, lost };
            assert_eq!(long(&path, &place, Path::new("/proc")), format!("{path}\t{expected}"));
        }
    }
}
