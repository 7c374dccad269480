//! The lines of `nix.conf`, as `parseConfigFiles` in Nix's `configuration.cc` reads them.
//!
//! A line is cut at the first `#`, whatever stands before it, and split at white space; there are no quotes, no
//! escapes and no continuation lines. Bytes, not characters: nothing says that the file is UTF-8.

/// One line that says something.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// `include PATH`, or `!include PATH`, which need not exist.
    Include {
        /// As written.
        path: Vec<u8>,
        /// Is it an error when there is no such file?
        required: bool,
    },
    /// `NAME = WORDS`.
    Setting(Setting),
}

/// A setting and the words of its value; none for `NAME =`.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name, as written.
    pub name: Vec<u8>,
    /// Its value.
    pub words: Vec<Vec<u8>>,
}

/// Parses the text of one file.
///
/// # Errors
/// The number, from 1, of the first line that Nix would not accept.
pub fn parse(text: &[u8]) -> Result<Vec<Line>, usize> {
    let mut lines = Vec::new();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        if let Some(line) = parse_line(line).map_err(|BadLine| index + 1)? {
            lines.push(line);
        }
    }
    Ok(lines)
}

struct BadLine;

fn parse_line(line: &[u8]) -> Result<Option<Line>, BadLine> {
    let words: Vec<Vec<u8>> = before_comment(line)
        .split(|byte| is_space(*byte))
        .filter(|word| !word.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    // A first word `include` is never a setting: `include = x` is an error.
    Ok(match words.as_slice() {
        [] => None,
        [word, path] if word == b"include" => Some(Line::Include { path: path.clone(), required: true }),
        [word, path] if word == b"!include" => Some(Line::Include { path: path.clone(), required: false }),
        [word, ..] if word == b"include" || word == b"!include" => return Err(BadLine),
        [name, equals, words @ ..] if equals == b"=" => {
            Some(Line::Setting(Setting { name: name.clone(), words: words.to_vec() }))
        }
        _ => return Err(BadLine),
    })
}

fn before_comment(line: &[u8]) -> &[u8] {
    line.split(|&byte| byte == b'#').next().unwrap_or_default()
}

/// What separates words in Nix; narrower than C's `isspace` and Rust's `is_ascii_whitespace`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name=[w1|w2]`, `include(p)`, `!include(p)`, or the number of the bad line.
    fn show(text: &[u8]) -> String {
        let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let line = |line: &Line| match line {
            Line::Include { path, required: true } => format!("include({})", text_of(path)),
            Line::Include { path, required: false } => format!("!include({})", text_of(path)),
            Line::Setting(s) => format!("{}=[{}]", text_of(&s.name), text_of(&s.words.join(&b'|'))),
        };
        match parse(text) {
            Ok(lines) => lines.iter().map(line).collect::<Vec<_>>().join(" "),
            Err(number) => number.to_string(),
        }
    }

    #[test]
    fn lines() {
        for (text, expected) in [
            (&b""[..], ""),
            (b"\n\n \t\r\n", ""),
            (b"# a = b", ""),
            (b"a = b", "a=[b]"),
            (b"a = b # c", "a=[b]"),
            (b"a = b#c d", "a=[b]"),
            (b"a = #b", "a=[]"),
            (b"a =", "a=[]"),
            (b"\t a\t=\tb  c \r\n", "a=[b|c]"),
            (b"a = = b", "a=[=|b]"),
            (b"a = 'b c'", "a=['b|c']"),
            (b"a = b \\\nc = d", "a=[b|\\] c=[d]"),
            (b"a = b\rc", "a=[b|c]"),
            // neither of these is white space to Nix
            (b"a = b\x0bc\x0cd", "a=[b\x0bc\x0cd]"),
            (b"a = b\nc = d", "a=[b] c=[d]"),
            (b"include x", "include(x)"),
            (b"!include x # y", "!include(x)"),
            (b"\xff = \xfe", "\u{fffd}=[\u{fffd}]"),
            // what Nix does not accept
            (b"a", "1"),
            (b"a = b\n\nc", "3"),
            (b"a=b", "1"),
            (b"a= b", "1"),
            (b"a b", "1"),
            (b"a # = b", "1"),
            (b"= b", "1"),
            (b"include", "1"),
            (b"include x y", "1"),
            (b"include = x", "1"),
            (b"!include", "1"),
            (b"! include x", "1"),
        ] {
            assert_eq!(show(text), expected, "{:?}", String::from_utf8_lossy(text));
        }
        assert_eq!(show(b"= = b"), "==[b]", "odd, but so it is there");
    }
}
