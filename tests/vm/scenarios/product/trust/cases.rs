//! The configurations that are asked about: by hand, one for each rule, and some made by chance, always the same ones.

/// A configuration.
#[derive(Debug)]
pub struct Case {
    /// For the table.
    pub title: String,
    /// Files below `/etc`, with their texts.
    pub files: Vec<(String, String)>,
    /// The daemon's `NIX_CONFIG`.
    pub environment: Option<String>,
}

/// All of them.
pub fn all() -> Vec<Case> {
    let mut cases: Vec<_> =
        PLAIN.iter().map(|(title, text)| case(title, &[("nix/nix.conf", text)])).collect();
    cases.extend(WITH_FILES.iter().map(|(title, files)| case(title, files)));
    cases.extend(WITH_ENVIRONMENT.iter().map(|(title, text, environment)| Case {
        environment: Some((*environment).to_owned()),
        ..case(title, &[("nix/nix.conf", text)])
    }));
    let mut chance = Chance(1);
    cases.extend((0..24).map(|number| generated(number, &mut chance)));
    cases
}

fn case(title: &str, files: &[(&str, &str)]) -> Case {
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Case { title: title.to_owned(), files, environment: None }
}

/// A title and the text of `nix.conf`.
const PLAIN: &[(&str, &str)] = &[
    ("defaults", "sandbox = true\n"),
    ("empty file", ""),
    ("unknown setting", "x = y\n"),
    ("trusted user", "trusted-users = root alice\n"),
    ("trusted group by member list", "trusted-users = @wheel\n"),
    ("trusted group by primary group", "trusted-users = @staff2\n"),
    ("trusted group with an odd member list", "trusted-users = @odd\n"),
    ("trusted group of a great many", "trusted-users = @crowd\n"),
    ("allowed group of a great many", "allowed-users = @crowd\ntrusted-users =\n"),
    ("trusted group without members", "trusted-users = @nobodys\n"),
    ("group from a name service", "trusted-users = @nssgroup\nallowed-users = @nssprimary\n"),
    ("user from a name service", "trusted-users = nssuser\nallowed-users = @wheel\n"),
    ("several groups", "trusted-users = @nobodys @nosuch @wheel\nallowed-users = @odd @staff2\n"),
    ("allowed one", "allowed-users = alice\n"),
    ("allowed none", "allowed-users =\n"),
    ("trusted none", "trusted-users =\n"),
    ("both none", "allowed-users =\ntrusted-users =\n"),
    ("trusted all", "trusted-users = *\n"),
    ("trusted all, allowed none", "trusted-users = *\nallowed-users =\n"),
    ("allowed all among others", "allowed-users = alice * bob\ntrusted-users = bob\n"),
    ("a star is no pattern", "trusted-users = ali* *lice @* @wh*\nallowed-users = b*\n"),
    ("extra", "extra-trusted-users = bob\n"),
    ("extra, then plain", "extra-trusted-users = bob\ntrusted-users = alice\n"),
    ("plain, then extra", "trusted-users = alice\nextra-trusted-users = bob dave\n"),
    ("extra twice", "extra-trusted-users = bob\nextra-trusted-users = @staff2\n"),
    ("extra allowed", "allowed-users = alice\nextra-allowed-users = bob\n"),
    ("extra allowed keeps the default", "extra-allowed-users = alice\n"),
    ("empty extra", "extra-trusted-users =\nallowed-users = bob\nextra-allowed-users =\n"),
    ("extra extra", "extra-extra-trusted-users = bob\nallowed-users = root\n"),
    ("later wins", "trusted-users = alice\ntrusted-users = bob\n"),
    ("later none wins", "trusted-users = alice\ntrusted-users =\nallowed-users = bob\nallowed-users =\n"),
    ("id of an unknown user", "trusted-users = 4712\nallowed-users = 4711\n"),
    ("id of a known user is no name", "trusted-users = 1000 0 65534\nallowed-users = 5001\n"),
    ("id of an unknown group", "trusted-users = @4712\n"),
    ("id of a known group is no name", "trusted-users = @100 @0\nallowed-users = @users\n"),
    ("ids with zeros and signs", "trusted-users = 04712 +4712 0x1268 4712.0\nallowed-users = @04712\n"),
    ("first of two names", "trusted-users = first\nallowed-users = @one\n"),
    ("second of two names", "trusted-users = second\nallowed-users = @another\n"),
    ("build user", "trusted-users = nixbld1\n"),
    ("build group", "trusted-users = @nixbld\nallowed-users = @nixbld\n"),
    ("nobody", "trusted-users = nobody\nallowed-users = @nogroup\n"),
    ("allowed group, trusted user", "allowed-users = @wheel\ntrusted-users = bob\n"),
    ("user named like a group", "trusted-users = wheel staff2\nallowed-users = @alice @bob\n"),
    ("capital letters", "Trusted-Users = alice\ntrusted-users = Alice ALICE\n"),
    ("empty group", "trusted-users = @ @@wheel alice\n"),
    ("unknown users and groups", "trusted-users = nosuch @nosuch\nallowed-users = nosuch bob @nosuch\n"),
    ("same name many times", "trusted-users = alice alice @wheel @wheel alice\n"),
    ("tabs and carriage returns", "\ttrusted-users\t=\talice\tbob \r\nallowed-users = root\r\n"),
    (
        "comment right after a word",
        "trusted-users = alice#bob\nallowed-users = root # bob\n# allowed-users = *\n",
    ),
    ("comment instead of a value", "trusted-users = # alice\n"),
    ("comment in a name", "trusted#-users = alice\n"),
    ("no line end", "trusted-users = alice"),
    ("form feed and vertical tab", "trusted-users = root\u{c}alice bob\u{b}dave \u{c} alice\n"),
    ("no-break space", "trusted-users = alice\u{a0}bob dave\n"),
    ("byte order mark", "\u{feff}trusted-users = alice\nallowed-users = bob\n"),
    ("letters beyond ASCII", "trusted-users = \u{e1}lice @wh\u{e9}el\nallowed-users = bob\n"),
    ("quotes", "trusted-users = \"alice\" 'bob'\nallowed-users = \"*\"\n"),
    ("backslash", "trusted-users = \\\n alice = bob\n"),
    ("a comma", "trusted-users = alice, bob\nallowed-users = root,dave\n"),
    ("two equal signs", "trusted-users = = alice\nallowed-users = =bob\n"),
    ("no space around the sign", "trusted-users=alice\n"),
    ("space on one side", "trusted-users= alice\n"),
    ("value on the next line", "trusted-users = alice\n bob\n"),
    ("name alone", "trusted-users\n"),
    ("error after what would trust", "trusted-users = *\nnonsense\n"),
    ("sign alone", "= alice\n"),
    ("include without a file", "include\n"),
    ("include of two", "include a b\n"),
    ("include as a setting", "include = x\n"),
    ("include of nothing", "include nowhere.conf\ntrusted-users = alice\n"),
    ("optional include of nothing", "!include nowhere.conf\ntrusted-users = alice\n"),
    ("include of itself", "trusted-users = alice\ninclude nix.conf\n"),
];

/// A title and files below `/etc`.
const WITH_FILES: &[(&str, &[(&str, &str)])] = &[
    ("no file", &[]),
    ("include", &[("nix/nix.conf", "include x.conf\n"), ("nix/x.conf", "trusted-users = bob\n")]),
    ("optional include", &[("nix/nix.conf", "!include x.conf\n"), ("nix/x.conf", "trusted-users = bob\n")]),
    (
        "include below wins",
        &[
            ("nix/nix.conf", "trusted-users = alice\ninclude x.conf\n"),
            ("nix/x.conf", "trusted-users = bob\n"),
        ],
    ),
    (
        "include above loses",
        &[
            ("nix/nix.conf", "include x.conf\ntrusted-users = alice\n"),
            ("nix/x.conf", "trusted-users = bob\n"),
        ],
    ),
    (
        "include with dots",
        &[("nix/nix.conf", "include ../nix/./no/../x.conf\n"), ("nix/x.conf", "trusted-users = bob\n")],
    ),
    (
        "include by an absolute path",
        &[("nix/nix.conf", "include /etc/nix/d/x.conf\n"), ("nix/d/x.conf", "allowed-users = bob\n")],
    ),
    (
        "include in an include, relative to it",
        &[
            ("nix/nix.conf", "include d/x.conf\nextra-trusted-users = dave\n"),
            ("nix/d/x.conf", "include y.conf\n!include nix.conf\n"),
            ("nix/d/y.conf", "trusted-users = alice\n"),
            ("nix/y.conf", "trusted-users = bob\n"),
        ],
    ),
    (
        "same include twice",
        &[
            ("nix/nix.conf", "include x.conf\ntrusted-users = alice\ninclude x.conf\n"),
            ("nix/x.conf", "extra-trusted-users = bob\n"),
        ],
    ),
    (
        "error in an optional include",
        &[("nix/nix.conf", "!include x.conf\n"), ("nix/x.conf", "trusted-users = alice\nnonsense\n")],
    ),
    (
        "second file wins",
        &[
            ("nix/nix.conf", "trusted-users = alice\nallowed-users = bob\n"),
            ("xdg/nix/nix.conf", "trusted-users = dave\n"),
        ],
    ),
    (
        "second file adds",
        &[("nix/nix.conf", "trusted-users = alice\n"), ("xdg/nix/nix.conf", "extra-trusted-users = dave\n")],
    ),
    ("second file alone", &[("xdg/nix/nix.conf", "trusted-users = dave\nallowed-users = @wheel\n")]),
    (
        "error in the second file",
        &[("nix/nix.conf", "trusted-users = alice\n"), ("xdg/nix/nix.conf", "nonsense\n")],
    ),
];

/// A title, the text of `nix.conf`, and `NIX_CONFIG`.
const WITH_ENVIRONMENT: &[(&str, &str, &str)] = &[
    ("environment wins", "trusted-users = alice\n", "trusted-users = bob"),
    ("environment adds", "trusted-users = alice\n", "extra-trusted-users = bob\nallowed-users = dave"),
    ("error in the environment", "trusted-users = alice\n", "nonsense"),
];

/// A linear congruential generator (the constants are Knuth's), so that every run asks the same.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The upper bits are the good ones; the result is below `limit`, so it fits.
        ((self.0 >> 33) % limit as u64) as usize
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

fn generated(number: usize, chance: &mut Chance) -> Case {
    let mut files = vec![("nix/nix.conf".to_owned(), text(chance, "a.conf"))];
    files.push(("nix/a.conf".to_owned(), text(chance, "d/b.conf")));
    files.push(("nix/d/b.conf".to_owned(), text(chance, "../none.conf")));
    if chance.below(4) == 0 {
        files.push(("xdg/nix/nix.conf".to_owned(), text(chance, "/etc/nix/a.conf")));
    }
    Case { title: format!("by chance {number}"), files, environment: None }
}

fn text(chance: &mut Chance, included: &str) -> String {
    let settings = ["trusted-users", "allowed-users", "extra-trusted-users", "extra-allowed-users", "cores"];
    let names = "root alice bob dave carol nosuch 4711 4712 1000 first second nobody @wheel @staff2 @odd @one \
                 @another @users @100 @4712 @nobodys @nogroup nixbld1 @nixbld @ alice@wheel nssuser @nssgroup";
    let names: Vec<_> = names.split_whitespace().collect();
    let blanks = [" ", " ", "  ", "\t", " \t ", "\r"];
    let mut text = String::new();
    for _ in 0..1 + chance.below(4) {
        match chance.below(12) {
            0 => text += "  # trusted-users = *",
            1 | 2 => text += &format!("!include{}{included}", chance.of(&blanks)),
            _ => {
                let setting = chance.of(&settings);
                text += &format!(
                    "{}{setting}{}={}",
                    chance.of(&["", " ", "\t"]),
                    chance.of(&blanks),
                    chance.of(&blanks)
                );
                let count = if setting == "cores" { 0 } else { chance.below(4) };
                text += if setting == "cores" { "1" } else { "" };
                for _ in 0..count {
                    let name = if chance.below(25) == 0 { "*" } else { chance.of(&names) };
                    text += &format!("{name}{}", chance.of(&blanks));
                }
                text += chance.of(&["", "", " # bob", "#*"]);
            }
        }
        text.push('\n');
    }
    // One error in a while.
    text + if chance.below(25) == 0 { "nonsense here\n" } else { "" }
}
