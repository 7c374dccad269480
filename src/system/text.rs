//! Text that others wrote, made fit for a terminal.

use std::path::Path;

/// The most characters of one message that are kept.
const LONGEST: usize = 4000;

/// `text` without terminal escape sequences, with every other control character and every character that reorders
/// text replaced by `?`, and cut when very long. Line ends stay.
pub fn printable(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text.trim_end().chars();
    let mut length = 0;
    while let Some(character) = rest.next() {
        if length == LONGEST {
            kept.push_str("...");
            break;
        }
        match character {
            '\x1b' => {
                rest = after_escape(rest);
                continue;
            }
            '\n' => kept.push('\n'),
            '\t' => kept.push(' '),
            character => kept.push(shown(character)),
        }
        length += 1;
    }
    kept
}

/// The character, or `?` for one that controls a terminal or reorders text.
pub fn shown(character: char) -> char {
    if character.is_control() || reorders(character) { '?' } else { character }
}

/// `text` as one line, with every character that controls a terminal or reorders text replaced by `?`: for names and command lines.
pub fn one_line(text: &str) -> String {
    text.chars().map(shown).collect()
}

/// A path as it is shown: names may hold all that others put in them, bytes that are no text and line breaks among it.
pub fn path(path: &Path) -> String {
    one_line(&path.to_string_lossy())
}

/// `text` without what controls a terminal, except line breaks, tabs and colours (`ESC [ numbers m`): the last thing that is done to what
/// is printed. Who puts others' words into a message makes them [`printable`] there.
pub fn for_terminal(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let colour = colour(rest);
        let (part, after) = rest.split_at(colour.unwrap_or(character.len_utf8()));
        if colour.is_some() || matches!(character, '\n' | '\t') || !character.is_control() {
            kept.push_str(part);
        }
        rest = after;
    }
    kept
}

/// A JSON text with every control character escaped, also those that JSON lets through (U+007F to U+009F, of which U+009B begins a
/// sequence as `ESC [` does). They stand in strings only.
pub fn escaped_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\u{7f}'..='\u{9f}' => escaped.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// The length of the colour sequence that a text begins with.
fn colour(text: &str) -> Option<usize> {
    let numbers = text.strip_prefix("\x1b[")?;
    let end = numbers.find(|character: char| !character.is_ascii_digit() && character != ';')?;
    numbers[end..].starts_with('m').then_some("\x1b[".len() + end + 1)
}

/// Skips one control sequence (`ESC [ ... letter`, which is what Nix colours with); any other escape loses only its
/// first character, and what follows is shown.
fn after_escape(rest: std::str::Chars<'_>) -> std::str::Chars<'_> {
    let mut after = rest.clone();
    if after.next() != Some('[') {
        return rest;
    }
    let mut sequence = after.clone();
    while let Some(character) = sequence.next() {
        match character {
            '\x40'..='\x7e' => return sequence,
            '\x20'..='\x3f' => {}
            _ => break,
        }
    }
    after
}

/// The bidirectional controls, with which a message can show other words than it holds.
fn reorders(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_moves_a_terminal_gets_through() {
        let rows = [
            ("\x1b[31;1merror:\x1b[0m path '\x1b[35;1m/nix/store/x\x1b[0m'", "error: path '/nix/store/x'"),
            ("a\x1b]0;title\x07b", "a]0;title?b"),
            ("a\u{9b}31mb\rc\x08d", "a?31mb?c?d"),
            ("safe\u{202e}txt.exe", "safe?txt.exe"),
            ("two\nlines\n", "two\nlines"),
            ("cut \x1b[", "cut "),
            ("\x1b[\u{7}31m", "?31m"),
            ("grüße", "grüße"),
        ];
        for (text, expected) in rows {
            assert_eq!(printable(text), expected, "{text:?}");
        }
        assert_eq!(printable(&"x".repeat(10_000)).len(), LONGEST + 3);
    }

    #[test]
    fn json_says_the_same_without_control_characters() {
        let value = serde_json::json!({ "a\u{9b}2J": "b\u{7f}\u{1b}\n\u{a0}ü" });
        let escaped = escaped_json(&value.to_string());
        assert!(!escaped.contains(char::is_control), "{escaped:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn a_name_stays_in_its_line() {
        assert_eq!(path(Path::new("/tmp/a\nb\x1b[2J\u{9b}m\u{202e}c")), "/tmp/a?b?[2J?m?c");
        assert_eq!(one_line("nix build\t/x\r"), "nix build?/x?");
    }

    #[test]
    fn only_lines_tabs_and_colours_reach_a_terminal() {
        let rows = [
            ("\x1b[31;1mred\x1b[0m\n\t-a\n\t+b\n", "\x1b[31;1mred\x1b[0m\n\t-a\n\t+b\n"),
            ("\x1b[mplain", "\x1b[mplain"),
            ("a\x1b[2Jb\x1b[31", "a[2Jb[31"),
            ("a\x1b]0;title\x07b\x1bc", "a]0;titlebc"),
            ("over\rwritten\x08\x7f\u{9b}31m", "overwritten31m"),
            ("\x1b\x1b[1mgrüße", "\x1b[1mgrüße"),
            ("\x1b[3\x1b[31m1m", "[3\x1b[31m1m"),
        ];
        for (text, expected) in rows {
            assert_eq!(for_terminal(text), expected, "{text:?}");
        }
    }
}
