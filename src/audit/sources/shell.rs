//! Start-up files of root's shells, and what they source. Read, never run: a name that only a running shell knows is not seen.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::super::Danger::High;
use super::super::Fix;
use super::{Found, Scene, Source, absolute};
use crate::facts::startup_files;

pub const SOURCES: &[Source] = &[
    Source {
        key: "shell-startup",
        danger: High,
        trigger: "root's shells read it when they start: at a login, sudo -i, su",
        remedy: "replace the link by a file of root's",
        copies: true,
        find: |scene| startup_files(scene.reader).into_iter().map(Found::name).collect(),
    },
    Source {
        key: "shell-sources",
        danger: High,
        trigger: "root's shells source it when they start: at a login, sudo -i, su",
        remedy: "source it only when `[ \"$(id -u)\" != 0 ]`, and let root call Nix by a path outside /nix",
        copies: false,
        find: sourced,
    },
];

/// Begins what `audit --fix` writes around a command.
const GUARD: &str = "{ [ \"$(/usr/bin/id -u)\" = 0 ] || ";
/// How deep files that source others are followed.
const MAX_DEPTH: usize = 8;

fn sourced(scene: &Scene<'_>) -> Vec<Found> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut todo: Vec<(PathBuf, usize)> =
        startup_files(scene.reader).into_iter().map(|file| (file, 0)).collect();
    while let Some((file, depth)) = todo.pop() {
        if depth > MAX_DEPTH || !seen.insert(file.clone()) {
            continue;
        }
        let text = scene.trusted_text(&file).unwrap_or_default();
        let mut before = "";
        for line in text.lines() {
            for command in commands(line).into_iter().filter(|command| !is_guarded(before, line, command)) {
                let Some(name) = absolute(&command.argument) else { continue };
                todo.push((name.clone(), depth + 1));
                let guard = guarded(&file, line).map(|new| Fix::Guard { old: line.to_owned(), new });
                found.push(Found { guard, ..Found::name(name).by(&file) });
            }
            before = line;
        }
    }
    found
}

/// A `. FILE` or `source FILE`.
#[derive(Debug, PartialEq, Eq)]
struct Sourcing {
    /// Where it stands in the line.
    place: Range<usize>,
    argument: String,
}

/// The commands of a line that source something.
fn commands(line: &str) -> Vec<Sourcing> {
    let mut found = Vec::new();
    if line.trim_start().starts_with('#') {
        return found;
    }
    let words = words(line);
    for (index, word) in words.iter().enumerate() {
        let text = &line[word.clone()];
        let before = index.checked_sub(1).map(|index| &line[words[index].clone()]);
        let begins = before.is_none_or(|before| {
            before.ends_with([';', '&', '|', '{', '(', '!'])
                || ["then", "do", "else", "and", "or", "builtin", "command"].contains(&before)
        });
        if (text == "." || text == "source")
            && begins
            && let Some(argument) = words.get(index + 1)
        {
            let end = argument.start + line[argument.clone()].trim_end_matches([';', ')', '&', '|']).len();
            found.push(Sourcing { place: word.start..end, argument: line[argument.start..end].to_owned() });
        }
    }
    found
}

/// Where the words of a line stand.
fn words(line: &str) -> Vec<Range<usize>> {
    let start = |word: &str| word.as_ptr() as usize - line.as_ptr() as usize;
    line.split_whitespace().map(|word| start(word)..start(word) + word.len()).collect()
}

/// Whether the line, or the one before it, keeps root out: by our own guard, or by a condition on the uid.
fn is_guarded(before: &str, line: &str, command: &Sourcing) -> bool {
    let ahead = &line[..command.place.start];
    let asks = |text: &str| text.contains("id -u") || text.contains("UID");
    let keeps_out =
        |text: &str| asks(text) && ["!= 0", "-ne 0", "!= \"0\"", "-gt 0"].iter().any(|no| text.contains(no));
    ahead.ends_with(GUARD) || keeps_out(ahead) || keeps_out(before)
}

/// The line with a condition around each of its commands; `None` for a shell whose language has no such form.
fn guarded(file: &Path, line: &str) -> Option<String> {
    let name = file.to_string_lossy();
    if name.contains("csh") {
        return None;
    }
    let fish = name.ends_with(".fish");
    let mut new = line.to_owned();
    for Sourcing { place, .. } in commands(line).into_iter().rev() {
        let command = &line[place.clone()];
        let text = match fish {
            true => format!("if test (/usr/bin/id -u) != 0; {command}; end"),
            false => format!("{GUARD}{command}; }}"),
        };
        new.replace_range(place, &text);
    }
    Some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_words() {
        for (line, expected) in [
            (". /a", vec!["/a"]),
            ("  source '/a b'", vec!["'/a"]),
            ("if [ -e /a ]; then . /a; fi # added by Nix installer", vec!["/a"]),
            ("test -r /a && . /a", vec!["/a"]),
            ("(. /a)", vec![]),
            ("( . /a)", vec!["/a"]),
            ("# . /a", vec![]),
            ("echo . /a", vec![]),
            ("cp x . /a", vec![]),
            ("{ . /a; . /b; }", vec!["/a", "/b"]),
        ] {
            let found: Vec<_> = commands(line).into_iter().map(|command| command.argument).collect();
            assert_eq!(found, expected, "{line}");
        }
    }

    /// The guarded line, run by a real shell: root is kept out, others are not, and nothing else changes.
    #[test]
    fn the_guard_works_in_every_place() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "printf sourced").unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let name = file.to_str().unwrap();
        for line in [
            format!(". {name}"),
            format!("if [ -e {name} ]; then . '{name}'; fi"),
            format!("test -e {name} && . {name} # why"),
            format!("test -e {name}x || . {name}"),
            format!("{{ . {name}; }}"),
        ] {
            let new = guarded(Path::new("/etc/profile"), &line).unwrap();
            let run = |user: &str| {
                let script = format!("set -e\n{new}\nprintf ' end'");
                let args = ["--reuid", user, "--clear-groups", "sh", "-c", &script];
                let output = std::process::Command::new("setpriv").args(args).output().unwrap();
                String::from_utf8(output.stdout).unwrap()
            };
            assert_eq!(run("0"), " end", "{new}");
            assert_eq!(run("65534"), "sourced end", "{new}");
            let again = commands(&new);
            assert!(again.iter().all(|command| is_guarded("", &new, command)), "{new}: {again:?}");
        }
    }
}
