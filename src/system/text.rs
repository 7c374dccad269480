//! Text that others wrote, made fit for a terminal.

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
}
