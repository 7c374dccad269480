//! Every flag can be set everywhere, and a mistake is told with its place.

use std::collections::BTreeSet;
use std::fs;

use super::*;

fn all() -> Vec<Key> {
    keys::of(&Cli::command())
}

/// What a file with this text would say, parsed for this command.
fn parsed(text: &str, arguments: &[&str]) -> Result<Cli> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("nix-unroot.toml");
    fs::write(&path, text)?;
    let keys = all();
    let file = ConfigFile::read(Some(&path), &keys)?;
    let arguments = ["nix-unroot"].iter().chain(arguments);
    Ok(Cli::from_arg_matches(&with_defaults(command(), &keys, &file).try_get_matches_from(arguments)?)?)
}

fn refused(text: &str) -> String {
    format!("{:#}", parsed(text, &["inspect"]).map(drop).unwrap_err())
}

/// A value that the flag takes, in the file.
fn sample(key: &Key) -> String {
    let example = example::example(std::slice::from_ref(key));
    example.lines().last().unwrap().trim_start_matches('#').to_owned()
}

/// Each flag of each command is a key and a variable that reach it, or stands in the list of those that are for one call.
#[test]
fn every_flag_is_a_key_and_a_variable() {
    let (root, keys) = (command(), all());
    let mut seen = BTreeSet::new();
    let commands =
        [(None, &root)].into_iter().chain(root.get_subcommands().map(|sub| (Some(sub.get_name()), sub)));
    for (section, command) in commands {
        for argument in command.get_arguments() {
            let Some(flag) = argument.get_long().filter(|flag| *flag != keys::CONFIG) else { continue };
            let once = keys::ONCE.iter().any(|(name, once, _)| section == Some(name) && *once == flag);
            let key = keys.iter().find(|key| key.is(section, flag));
            assert_eq!(key.is_none(), once, "{section:?} --{flag}");
            let variable = argument.get_env().map(|name| name.to_str().unwrap().to_owned());
            assert_eq!(variable, key.map(|key| key.variable.clone()));
            if let Some(key) = key {
                assert!(seen.insert(key.variable.clone()), "{} stands for two flags", key.variable);
                assert!(!key.help().is_empty(), "{section:?} --{flag} says nothing of itself");
            }
        }
    }
    assert_eq!(seen.len(), keys.len());
    for (command, flag, _) in keys::ONCE {
        let sub = root.find_subcommand(command).unwrap();
        assert!(
            sub.get_arguments().any(|argument| argument.get_long() == Some(flag)),
            "{command} has no --{flag}"
        );
    }
}

/// The guide names each with its variable, and what is only on the command line.
#[test]
fn every_flag_is_in_the_guide() {
    let guide = include_str!("../../../docs/administrator-guide.md");
    for key in all() {
        for name in [&key.name, &key.variable] {
            let there = [format!("`{name}`"), format!("`--{name}`")].iter().any(|form| guide.contains(form));
            assert!(there, "{name} is not in docs/administrator-guide.md");
        }
    }
    for (_, flag, _) in keys::ONCE {
        assert!(guide.contains(&format!("--{flag}`")), "{flag}");
    }
}

/// The value that a file gives is the one that the command gets.
#[test]
fn every_key_reaches_its_flag() {
    for key in all() {
        let value = if key.kind == Kind::Switch { format!("{} = true", key.name) } else { sample(&key) };
        let text = key.section.as_ref().map_or(value.clone(), |section| format!("[{section}]\n{value}"));
        let keys = all();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x"), &text).unwrap();
        let file = ConfigFile::read(Some(&dir.path().join("x")), &keys).unwrap();
        let name = key.section.as_deref().unwrap_or("verify");
        let matches =
            with_defaults(command(), &keys, &file).try_get_matches_from(["nix-unroot", name]).unwrap();
        let (_, matches) = matches.subcommand().unwrap();
        let id = key.name.replace('-', "_");
        let raw: Vec<_> = matches.get_raw(&id).unwrap().map(|value| value.to_str().unwrap()).collect();
        assert!(value.contains(raw[0]), "{}: {raw:?}", key.shown());
    }
}

#[test]
fn the_example_has_all_and_parses_when_uncommented() {
    let text = example::example(&all());
    let uncommented: String = text
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .map(|line| format!("{line}\n"))
        .collect();
    let keys = all();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), &uncommented).unwrap();
    let file = ConfigFile::read(Some(&dir.path().join("x")), &keys).unwrap();
    for (at, key) in keys.iter().enumerate() {
        assert!(file.get(at).is_some(), "{} is not in the example", key.shown());
        assert!(text.contains(&format!(", {}\n", key.variable)), "{}", key.variable);
        let default = key.default().unwrap_or_default();
        assert!(uncommented.contains(&default), "{}", key.shown());
    }
    // Commented out, it changes nothing.
    assert!(!parsed(&text, &["migrate"]).unwrap().common.settings.yes);
}

#[test]
fn a_flag_outranks_the_file() {
    let text = "nix-user = 'fromfile'\ndrain-timeout = 0x7\nyes = true\n[migrate]\nkeep-partial = true\nexit-code = true\n";
    let cli = parsed(text, &["migrate", "--nix-user", "flag"]).unwrap();
    let settings = &cli.common.settings;
    assert_eq!(
        (settings.nix_user.as_deref(), settings.drain_timeout, settings.yes),
        (Some("flag"), Some(7), true)
    );
    let Command::Migrate(args) = cli.command else { panic!("{:?}", cli.command) };
    assert!(args.keep_partial && args.status.exit_code && !args.dry_run);
    // Before the command as well as behind it.
    let cli = parsed(text, &["--nix-user", "flag", "install"]).unwrap();
    assert_eq!(cli.common.settings.nix_user.as_deref(), Some("flag"));
    let Command::Install(args) = cli.command else { panic!("{:?}", cli.command) };
    assert!(!args.keep_partial);
}

#[test]
fn a_mistake_in_the_file_is_told_with_its_line() {
    for (text, parts) in [
        ("\n\nnix-usr = 'x'", ["line 3", "\"nix-usr\"", "the nearest is \"nix-user\""]),
        ("keep-partial = true", ["line 1", "belongs in [migrate]", "[install]"]),
        ("[migrate]\nnix-user = 'x'", ["line 2", "in [migrate]", "at the top"]),
        ("[migrat]\ndry-run = true", ["line 1", "no section [migrat]", "[migrate]"]),
        ("[rollback]\nkeep = 'thiers'", ["line 2", "'thiers'", "theirs"]),
        ("yes = 1", ["line 1", "yes takes", "true or false"]),
        ("nix-uid = -1", ["line 1", "nix-uid", "-1"]),
        ("nix-uid = 4294967296", ["line 1", "nix-uid", "not in"]),
        ("nix-user = true", ["line 1", "takes a text", "nix-user"]),
        ("[history]\nrun = 3", ["line 2", "\"run\"", "[history]"]),
        ("yes = ", ["line 1", "is not right", "nix-unroot.toml"]),
    ] {
        let said = refused(text);
        assert!(parts.iter().all(|part| said.contains(part)), "{text:?}: {said}");
    }
    let both = refused("nix-usr = 'x'\nsubid-cuont = 3");
    assert!(both.contains("nix-user") && both.contains("subid-count"), "all mistakes at once: {both}");
    assert!(ConfigFile::read(Some(Path::new("/nonexistent.toml")), &all()).is_err());
}

#[test]
fn a_mistake_in_a_variable_is_told_with_its_name() {
    let check = |name: &str, value: &str| variables::check(&all(), [(name.into(), value.into())]);
    for (name, value) in [
        ("NIX_UNROOT_YES", "1"),
        ("NIX_UNROOT_MIGRATE_DRY_RUN", "off"),
        ("NIX_UNROOT_CONFIG", "/x"),
        ("NIX_UNROOT_RELEASE_URL", "http://mirror"),
        ("NIX_UNROOT_LOG_FORMAT", "json"),
        ("NIX_SSL_CERT_FILE", "/x"),
    ] {
        check(name, value).unwrap();
    }
    for (name, value, part) in [
        ("NIX_UNROOT_MIGRATE_DRYRUN", "1", "the nearest is NIX_UNROOT_MIGRATE_DRY_RUN"),
        ("NIX_UNROOT_YES", "maybe", "NIX_UNROOT_YES: \"maybe\""),
        ("NIX_UNROOT_NIX_UID", "x", "NIX_UNROOT_NIX_UID"),
        ("NIX_UNROOT_LOG_FORMAT", "xml", "text, json"),
        ("NIX_UNROOT_ROOTS_EXPIRE", "/x", "NIX_UNROOT_ROOTS_EXPIRE"),
    ] {
        let said = check(name, value).unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
    }
}
