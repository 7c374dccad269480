//! Reads a `strace -f -y` log and names every call that changed a file.

use super::machine::Machine;
use anyhow::{Result, ensure};

/// What `strace -e trace=` must record for [`writes`] to see everything that changes files.
const TRACED: &str = "%file,%desc,fchmod,fchown,ftruncate,fsetxattr,fremovexattr,fallocate";

/// Calls that change what a path names, whatever their arguments.
const CHANGING: &[&str] = &[
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "mknod",
    "mknodat",
    "link",
    "linkat",
    "symlink",
    "symlinkat",
    "truncate",
    "ftruncate",
    "fallocate",
    "chmod",
    "fchmod",
    "fchmodat",
    "fchmodat2",
    "chown",
    "lchown",
    "fchown",
    "fchownat",
    "utime",
    "utimes",
    "futimesat",
    "utimensat",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "setxattrat",
    "removexattr",
    "lremovexattr",
    "fremovexattr",
    "removexattrat",
    "creat",
];
const OPENING: &[&str] = &["open", "openat", "openat2", "open_by_handle_at"];
const WRITE_FLAGS: &[&str] = &["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "O_TMPFILE"];

/// Runs a command as root, which must exit with `status` and show something; the calls of it and its children that
/// changed a file.
pub fn writes_of(machine: &Machine, command: &str, status: i32) -> Result<Vec<String>> {
    let log = "/run/strace.log";
    let outcome =
        machine.try_root(&format!("strace -f -y -o {log} -e trace={TRACED} {command}"))?.exits(status)?;
    ensure!(!outcome.stdout.trim().is_empty(), "it showed nothing: {outcome}");
    let log = machine.root(&format!("cat {log}"))?;
    ensure!(log.lines().count() > 10, "strace saw next to nothing:\n{log}");
    Ok(writes(&log))
}

/// The log's lines of calls that succeeded and changed something, except those that `allowed` knows as harmless.
fn writes(log: &str) -> Vec<String> {
    joined(log).into_iter().filter(|line| is_write(line) && !allowed(line)).collect()
}

fn is_write(line: &str) -> bool {
    let Some((name, rest)) = call(line) else { return false };
    let Some((arguments, result)) = rest.rsplit_once(" = ") else { return false };
    let result = result.trim_start();
    if result.starts_with('-') || result.starts_with('?') {
        return false;
    }
    // A path may contain the name of a flag.
    let bare = without_strings(arguments);
    CHANGING.contains(&name)
        || (OPENING.contains(&name) && WRITE_FLAGS.iter().any(|flag| bare.contains(flag)))
}

/// What a run that changes nothing may still open for writing: the null device and terminals, its own `/proc` (the
/// id maps of a namespace that it tries out), its pipes and sockets, and the two files through which SQLite's readers
/// and writers agree with each other (a reader creates neither; the manifest proves that).
fn allowed(line: &str) -> bool {
    let strings = strings(line);
    let path = strings.first().map(String::as_str).unwrap_or_default();
    let quiet = ["/dev/null", "/dev/tty", "/dev/ptmx"];
    let own_proc = path.starts_with("/proc/")
        && ["/uid_map", "/gid_map", "/setgroups", "/oom_score_adj", "/comm"]
            .iter()
            .any(|end| path.ends_with(end));
    let sqlite = path == "/nix/var/nix/db/db.sqlite-wal" || path == "/nix/var/nix/db/db.sqlite-shm";
    let opens = call(line).is_some_and(|(name, _)| OPENING.contains(&name));
    opens && (quiet.contains(&path) || path.starts_with("/dev/pts/") || own_proc || sqlite)
}

/// Name and the rest of the call; `None` for signals and exits.
fn call(line: &str) -> Option<(&str, &str)> {
    let line = line
        .trim_start_matches("[pid ")
        .trim_start_matches(|c: char| c.is_ascii_digit() || c == ']' || c == ' ');
    let (name, rest) = line.split_once('(')?;
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then_some((name, rest))
}

/// Puts calls together that another process interrupted in the log.
fn joined(log: &str) -> Vec<String> {
    let mut open: std::collections::HashMap<String, String> = std::collections::HashMap::new();
    let mut lines = Vec::new();
    for line in log.lines() {
        let pid = line.split_whitespace().next().unwrap_or_default().to_owned();
        if let Some(start) = line.strip_suffix("<unfinished ...>") {
            open.insert(pid, start.to_owned());
        } else if let Some((_, rest)) = line.split_once(" resumed>").filter(|_| line.contains("<... ")) {
            lines.push(open.remove(&pid).unwrap_or_default() + rest);
        } else {
            lines.push(line.to_owned());
        }
    }
    lines.extend(open.into_values());
    lines
}

fn strings(line: &str) -> Vec<String> {
    pieces(line).into_iter().filter_map(|(text, quoted)| quoted.then_some(text)).collect()
}

fn without_strings(line: &str) -> String {
    pieces(line).into_iter().filter_map(|(text, quoted)| (!quoted).then_some(text)).collect()
}

/// The line in pieces, each with whether it was between quotes.
fn pieces(line: &str) -> Vec<(String, bool)> {
    let (mut pieces, mut current, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        if c == '"' && !escaped {
            pieces.push((std::mem::take(&mut current), quoted));
            quoted = !quoted;
        } else {
            current.push(c);
        }
        escaped = quoted && c == '\\' && !escaped;
    }
    pieces.push((current, quoted));
    pieces
}

#[cfg(test)]
mod tests {
    use super::writes;

    #[test]
    fn every_change_is_seen_and_nothing_else() {
        let cases: [(&str, bool); 18] = [
            (r#"7 openat(AT_FDCWD</root>, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3</etc/passwd>"#, false),
            (r#"7 openat(AT_FDCWD</root>, "/etc/passwd", O_RDWR|O_CLOEXEC) = 3</etc/passwd>"#, true),
            (
                r#"7 openat(AT_FDCWD</root>, "/etc/x", O_WRONLY|O_CREAT, 0666) = -1 EACCES (Permission denied)"#,
                false,
            ),
            (r#"7 openat(AT_FDCWD</root>, "/etc/O_RDWR", O_RDONLY) = 3</etc/O_RDWR>"#, false),
            (r#"7 openat(AT_FDCWD</root>, "/dev/null", O_RDWR) = 3</dev/null>"#, false),
            (r#"7 openat(AT_FDCWD</root>, "/dev/null", O_RDWR) = 3</dev/null>"#, false),
            (r#"7 openat(3</proc>, "/proc/9/uid_map", O_WRONLY|O_CLOEXEC) = 4</proc/9/uid_map>"#, false),
            (r#"7 openat(AT_FDCWD</>, "/proc/sys/user/max_user_namespaces", O_WRONLY) = 4</proc/x>"#, true),
            (
                r#"7 openat(AT_FDCWD</>, "/nix/var/nix/db/db.sqlite-shm", O_RDWR|O_CREAT, 0644) = 4</x>"#,
                false,
            ),
            (r#"7 openat(AT_FDCWD</>, "/nix/var/nix/db/db.sqlite", O_RDWR|O_CREAT, 0644) = 4</x>"#, true),
            (r#"7 mkdir("/var/lib/nix-unroot", 0755) = 0"#, true),
            (r#"7 unlink("/dev/null") = 0"#, true),
            (r#"7 fchown(3</etc/x>, 0, 0) = 0"#, true),
            (r#"7 utimensat(3</etc/x>, NULL, NULL, 0) = 0"#, true),
            (r#"7 openat2(3</etc>, "x", {flags=O_WRONLY|O_CREAT, mode=0644}, 24) = 4</etc/x>"#, true),
            (r#"7 openat2(3</etc>, "x", {flags=O_PATH, resolve=RESOLVE_BENEATH}, 24) = 4</etc/x>"#, false),
            (r"7 --- SIGCHLD {si_signo=SIGCHLD} ---", false),
            (r"7 +++ exited with 0 +++", false),
        ];
        for (line, expected) in cases {
            assert_eq!(!writes(line).is_empty(), expected, "{line}");
        }
    }

    #[test]
    fn an_interrupted_call_is_put_together() {
        let log = "7 mkdir(\"/a\", 0755 <unfinished ...>\n8 close(3) = 0\n7 <... mkdir resumed>) = 0\n\
                   9 rmdir(\"/b\" <unfinished ...>\n9 <... rmdir resumed>) = -1 ENOENT (No such file)\n";
        assert_eq!(writes(log), [r#"7 mkdir("/a", 0755 ) = 0"#]);
    }
}
