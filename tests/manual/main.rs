//! The manual pages and the completions: complete, and right in the eyes of those who read them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_nix-unroot");

/// Standard output; it must succeed and have nothing to complain about.
fn said(command: &mut Command) -> String {
    // NIX_UNROOT_LONG and its kin are for tests, and no setting of the program.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NIX_UNROOT_"))
    {
        command.env_remove(name);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && stderr.is_empty(), "{command:?}: {} {stderr}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn help(command: &str) -> String {
    said(Command::new(PROGRAM).args([command, "--help"]).env("COLUMNS", "100"))
}

/// The commands, as `--help` lists them.
fn commands() -> Vec<String> {
    let help = said(Command::new(PROGRAM).arg("--help"));
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let first = |line: &str| {
        line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split(' ').next().map(str::to_owned)
    };
    let commands: Vec<_> = list.lines().filter_map(first).filter(|name| name != "help").collect();
    assert!(commands.len() > 10 && commands.iter().any(|name| name == "migrate"), "{commands:?}");
    commands
}

/// The long flags of a command, as `--help` lists them.
fn flags(command: &str) -> BTreeSet<String> {
    let help = help(command);
    let flags: BTreeSet<String> = help
        .lines()
        .filter(|line| line.trim_start().starts_with('-'))
        .filter_map(|line| line.split(&[' ', ',']).find(|word| word.starts_with("--")))
        .map(str::to_owned)
        .collect();
    assert!(flags.contains("--nix-user") && flags.contains("--json"), "{flags:?}");
    flags
}

#[test]
fn every_command_and_flag_has_its_place_in_a_page() {
    let dir = tempfile::tempdir().unwrap();
    said(Command::new(PROGRAM).arg("man").arg(dir.path()));
    let main = fs::read_to_string(dir.path().join("nix-unroot.8")).unwrap();
    assert_eq!(said(Command::new(PROGRAM).arg("man")).trim(), main.trim());
    for command in commands() {
        assert!(main.contains(&format!("nix\\-unroot\\-{command}(8)")), "{command} is not in nix-unroot.8");
        let text = rendered(&dir.path().join(format!("nix-unroot-{command}.8")));
        for flag in flags(&command) {
            let listed = |line: &str| {
                line.trim_start().starts_with('-') && line.split([' ', ',']).any(|word| word == flag)
            };
            assert!(text.lines().any(listed), "{flag} is not in the page of {command}:\n{text}");
        }
        assert!(text.contains("NIX_UNROOT_NIX_USER"), "variables are not in the page of {command}");
    }
    assert!(main.contains("Exit status: 0 done"));
    rendered(&dir.path().join("nix-unroot.8"));
    let pages = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(pages, commands().len() + 1);
}

/// The page as a person sees it; groff must not complain about anything.
fn rendered(page: &Path) -> String {
    said(Command::new("groff").args(["-man", "-ww", "-Tascii", "-P-c", "-P-bou", "-rLL=200n"]).arg(page))
}

/// What bash offers at the end of these words.
fn offered(script: &Path, words: &[&str]) -> Vec<String> {
    let (last, before) = words.split_last().unwrap();
    // What bash itself does at a press of the key: the words of the line, and the function with command, word and word before.
    let code = r#"source "$1"; shift; line=("$@"); COMP_WORDS=("${line[@]}"); COMP_CWORD=$((${#line[@]} - 1))
        function=$(complete -p nix-unroot | sed -E 's/.* -F ([^ ]+) .*/\1/'); COMP_LINE="${line[*]}"; COMP_POINT=${#COMP_LINE}
        "$function" nix-unroot "${line[-1]}" "${line[-2]}"; [ ${#COMPREPLY[@]} = 0 ] || printf '%s\n' "${COMPREPLY[@]}""#;
    let offered = said(Command::new("bash").args(["-c", code, "bash"]).arg(script).args(before).arg(last));
    offered.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_every_command_flag_and_choice() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("completions");
    fs::write(&script, said(Command::new(PROGRAM).args(["completions", "bash"]))).unwrap();
    let all: BTreeSet<_> = offered(&script, &["nix-unroot", ""]).into_iter().collect();
    for command in commands() {
        assert!(all.contains(&command), "{command} is not offered: {all:?}");
        let offered: BTreeSet<_> = offered(&script, &["nix-unroot", &command, "--"]).into_iter().collect();
        for flag in flags(&command) {
            assert!(offered.contains(&flag), "{flag} of {command} is not offered: {offered:?}");
        }
    }
    assert_eq!(offered(&script, &["nix-unroot", "migr"]), ["migrate"]);
    assert_eq!(offered(&script, &["nix-unroot", "migrate", "--keep-p"]), ["--keep-partial"]);
    assert_eq!(offered(&script, &["nix-unroot", "rollback", "--keep", ""]), ["theirs", "ours"]);
    assert_eq!(offered(&script, &["nix-unroot", "inspect", "--log-format", "j"]), ["json"]);
}

/// zsh and fish are not on every machine that passes the tests; their scripts come from the same list.
#[test]
fn completions_for_zsh_and_fish_have_every_command_and_flag() {
    for (shell, prefix) in [("zsh", "--"), ("fish", "-l ")] {
        let script = said(Command::new(PROGRAM).args(["completions", shell]));
        for command in commands() {
            assert!(script.contains(&command), "{command} is not in the completions for {shell}");
            for flag in flags(&command) {
                let flag = flag.replacen("--", prefix, 1);
                assert!(script.contains(&flag), "{flag} is not in the completions for {shell}");
            }
        }
    }
}

/// A release has them in the places where they are looked for below a prefix.
#[test]
fn a_release_brings_pages_and_completions() {
    let dir = tempfile::tempdir().unwrap();
    let programs = dir.path().join("programs");
    fs::create_dir(&programs).unwrap();
    for name in ["nix-unroot", "nix-root-scan", "nix-daemon-gate"] {
        std::os::unix::fs::symlink(PROGRAM, programs.join(name)).unwrap();
    }
    let release = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/release");
    let out = dir.path().join("dist");
    let packed = said(Command::new(release).arg("--programs").arg(&programs).arg("--output").arg(&out));
    let archive = packed.lines().find(|line| line.ends_with(".tar.gz")).unwrap();
    said(Command::new("tar").arg("-C").arg(dir.path()).arg("-xf").arg(archive));
    let share = dir.path().join("share");
    for name in [
        "bash-completion/completions/nix-unroot",
        "zsh/site-functions/_nix-unroot",
        "fish/vendor_completions.d/nix-unroot.fish",
    ] {
        assert!(fs::read_to_string(share.join(name)).unwrap().contains("keep-partial"), "{name}");
    }
    assert_eq!(fs::read_dir(share.join("man/man8")).unwrap().count(), commands().len() + 1);
}
