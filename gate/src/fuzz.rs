//! What must hold for any input, for everything of this crate that reads some. `fuzz/` feeds these with made-up inputs (`cfg(fuzzing)`), a
//! test feeds them with the corpus that is kept there.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path};

use crate::accounts::Names;
use crate::args::Args;
use crate::builds::Builds;
use crate::conf::parse::{Line, Setting, parse};
use crate::conf::{self, Access, tree};
use crate::decide::{Verdict, decide};
use crate::namespace::names;
use crate::{exec, peer::Peer, refuse};

pub use helper_common::corpus::Target;

/// One for each kind of input, by the name of its target and corpus.
pub const TARGETS: [(&str, Target); 7] = [
    ("conf", conf),
    ("include", include),
    ("args", args),
    ("decision", decision),
    ("passwd", passwd),
    ("group", group),
    ("environment", environment),
];

/// What is understood is understood in the same way when it is written plainly; what is not, is not because of the line that is named.
pub fn conf(text: &[u8]) {
    let lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    match parse(text) {
        Ok(said) => {
            assert!(said.len() <= lines.len());
            let plain: Vec<u8> = said.iter().flat_map(write).collect();
            assert_eq!(parse(&plain), Ok(said));
        }
        Err(number) => {
            assert!(parse(&lines[..number - 1].join(&b'\n')).is_ok(), "an earlier line is bad");
            assert_eq!(parse(lines[number - 1]), Err(1), "line {number} is not bad");
        }
    }
}

fn write(line: &Line) -> Vec<u8> {
    let words: Vec<&[u8]> = match line {
        Line::Include { path, required } => vec![if *required { b"include" } else { b"!include" }, path],
        Line::Setting(Setting { name, words }) => {
            [name, &b"="[..]].into_iter().chain(words.iter().map(Vec::as_slice)).collect()
        }
    };
    for word in &words {
        assert!(!word.is_empty() && !word.iter().any(|byte| b" \t\r\n#".contains(byte)), "{word:?}");
    }
    let mut text = words.join(&b' ');
    text.push(b'\n');
    text
}

/// An included path is absolute and plain. The first line is the file that includes, the rest the path as written.
pub fn include(text: &[u8]) {
    let (file, path) = halves(text);
    if let Ok(found) = tree::resolve(Path::new(OsStr::from_bytes(file)), Path::new(OsStr::from_bytes(path))) {
        let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        assert!(found.is_absolute() && found.components().all(plain), "{found:?}");
    }
}

/// A command line that is taken is whole. Its words are separated by NUL, as in `/proc/PID/cmdline`.
pub fn args(text: &[u8]) {
    let words = text.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    let Ok(args) = Args::parse(words) else { return };
    assert!(args.daemon.is_absolute() && args.home.is_absolute() && !args.conf.is_empty());
    assert!(args.conf.iter().all(|file| file.is_absolute()));
    assert!(!args.home.as_os_str().as_bytes().iter().any(|byte| b":\n".contains(byte)));
    assert!(!args.build_group.is_empty() && !args.build_group.contains([':', '\n', ',']));
    assert!(!args.builds.contains(0) && !args.builds.contains(u32::MAX), "{:?}", args.builds);
    if let Builds::Namespace(subids) = &args.builds {
        assert!(subids.0.contains(subids.0.start) && subids.0.contains(subids.last()), "{subids:?}");
    }
    // Whatever was taken, a setting is one line.
    assert!(args.builds.settings().lines().all(|line| line.contains(" =")));
    assert!(args.limits.total > 0 && args.limits.per_user > 0);
    if let Some(listen) = args.listen {
        assert!(listen.path.is_absolute() && listen.mode <= 0o777);
        assert!(listen.user.is_none_or(|(uid, gid)| uid != 0 && gid != 0));
    }
}

/// Who is trusted is named. The first line is the group's member list as a name service gives it, separated by commas, the rest is `NIX_CONFIG`;
/// the peer is `alice` in the group `users`.
pub fn decision(text: &[u8]) {
    let (members, settings) = halves(text);
    // Other files are none of this target's business.
    if settings.windows(7).any(|word| word == b"include") {
        return;
    }
    let Ok(access) = conf::load(&[], Some(OsStr::from_bytes(settings))) else { return };
    let members: Vec<_> = String::from_utf8_lossy(members).split(',').map(str::to_owned).collect();
    let names = Names { user: "alice".to_owned(), group: "users".to_owned() };
    let peer = |uid| {
        let line = "--daemon\0/d\0--conf\0/c\0--subids\x0065536:65536";
        let args = Args::parse(line.split('\0').map(OsString::from)).expect("a good command line");
        decide(&access, uid, &names, &args, |_| Some(members.clone()))
    };
    let Access { trusted, allowed } = &access;
    let named = |list: &[Vec<u8>]| {
        let any = |word: &[u8]| list.iter().any(|entry| entry == word);
        let listed = members.iter().any(|member| member == "alice");
        let group =
            |entry: &Vec<u8>| entry.strip_prefix(b"@").is_some_and(|name| str::from_utf8(name).is_ok());
        any(b"*") || any(b"alice") || any(b"@users") || listed && list.iter().any(group)
    };
    let expected = match (named(trusted), named(allowed)) {
        (true, _) => Verdict::Trusted,
        (false, true) => Verdict::Untrusted,
        (false, false) => Verdict::Refused("neither allowed-users nor trusted-users names it"),
    };
    assert_eq!(peer(1000), expected, "{access:?}");
    assert_eq!(peer(65536), Verdict::Refused("it is a build"), "whatever the settings");
    refuse::check(&names.to_string());
}

/// The daemon's `/etc/passwd` has one user 0, the first, and all the host's others.
pub fn passwd(host: &[u8]) {
    let own = names::passwd(host, Path::new("/home"));
    assert!(own.starts_with(b"root:x:0:0:root:/home:/bin/sh\n") && own.ends_with(b"\n"));
    let is_root = |line: &&[u8]| field(line, 0) == b"root" || field(line, 2) == b"0";
    let roots: Vec<_> = lines(&own).filter(is_root).collect();
    assert_eq!(roots, [b"root:x:0:0:root:/home:/bin/sh"]);
    assert!(lines(&own).skip(1).eq(lines(host).filter(|line| !is_root(line))));
}

/// The daemon's `/etc/group` has the build group and the one without a name once each, before all others of the host.
pub fn group(host: &[u8]) {
    let own = names::group(host, "nixbld", 77);
    assert!(own.starts_with(b"nixbld:x:77:\n:x:77:\n") && own.ends_with(b"\n"));
    let is_ours = |line: &&[u8]| field(line, 0) == b"nixbld" || field(line, 0).is_empty();
    assert_eq!(lines(&own).filter(is_ours).count(), 2);
    assert!(lines(&own).skip(2).eq(lines(host).filter(|line| !is_ours(line))));
}

/// The daemon's environment has nothing for the loader, and settings that end with the gate's. The first line is the value of `NIX_CONFIG`, the
/// rest holds other variables, separated by NUL.
pub fn environment(text: &[u8]) {
    let (settings, variables) = halves(text);
    let given = variables.split(|byte| *byte == 0).filter_map(|entry| {
        let at = entry.iter().position(|byte| *byte == b'=')?;
        Some((OsString::from_vec(entry[..at].to_vec()), OsString::from_vec(entry[at + 1..].to_vec())))
    });
    let given = given.chain([(exec::NIX_CONFIG.into(), OsString::from_vec(settings.to_vec()))]);
    let args =
        "--daemon\0/d\0--conf\0/c\0--home\0/h\0--subids\x0065536:65536".split('\0').map(OsString::from);
    let args = Args::parse(args).expect("a good command line");
    let client = Peer { pid: 7, uid: 1000, gid: 1000 };
    let got = exec::environment(given, &args, client);
    for name in [exec::NIX_CONFIG, exec::CLIENT, "HOME"] {
        assert_eq!(got.iter().filter(|(found, _)| found == name).count(), 1, "{name}");
    }
    for (name, value) in &got {
        let name = name.as_bytes();
        assert!(!name.starts_with(b"LD_") && name != b"GLIBC_TUNABLES" && name != b"NIX_REMOTE");
        if name == exec::NIX_CONFIG.as_bytes() {
            assert!(value.as_bytes().ends_with(b"\nstore = local?use-roots-daemon=true\n"));
        }
    }
}

fn halves(text: &[u8]) -> (&[u8], &[u8]) {
    let at = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    (&text[..at], text.get(at + 1..).unwrap_or_default())
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

fn field<'a>(line: &&'a [u8], index: usize) -> &'a [u8] {
    line.split(|byte| *byte == b':').nth(index).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_corpus_holds() {
        helper_common::corpus::check(env!("CARGO_MANIFEST_DIR"), &super::TARGETS);
    }
}
