//! Paths below `/nix` in a text.

use std::path::PathBuf;

/// Paths at or below `/nix` that a text names, in order, each once. `/usr/share/nix/x` and `/nixos` are none.
pub(crate) fn named(text: &str) -> Vec<PathBuf> {
    paths_starting(text, "/nix")
}

/// Paths that begin with `start` as a whole component.
pub(crate) fn paths_starting(text: &str, start: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for (at, _) in text.match_indices(start) {
        let before = text[..at].chars().next_back();
        let rest = &text[at..];
        let path = &rest[..rest.find(|c: char| !in_path(c)).unwrap_or(rest.len())];
        let whole = path.len() == start.len() || path[start.len()..].starts_with('/');
        let path = PathBuf::from(path.trim_end_matches(['.', '/']));
        let goes_on = before.is_some_and(|c| c.is_ascii_alphanumeric() || "._/~$}".contains(c));
        if whole && !goes_on && !found.contains(&path) {
            found.push(path);
        }
    }
    found
}

fn in_path(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/._-+?@%~$".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_paths_count() {
        let rows = [
            (". '/nix/var/nix/x.sh'", vec!["/nix/var/nix/x.sh"]),
            ("PATH=/usr/bin:/nix/bin:/nix/bin", vec!["/nix/bin"]),
            ("if [ -e /nix ]; then", vec!["/nix"]),
            ("/usr/share/nix/x /nixos ${x}/nix/y $HOME/nix/z unix", vec![]),
            ("ExecStart=@/nix/store/a/bin/b", vec!["/nix/store/a/bin/b"]),
            ("see /nix/store.", vec!["/nix/store"]),
        ];
        for (text, expected) in rows {
            let expected: Vec<_> = expected.into_iter().map(PathBuf::from).collect();
            assert_eq!(named(text), expected, "{text}");
        }
    }
}
