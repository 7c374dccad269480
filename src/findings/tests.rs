//! One thing changed in sound facts, and the findings that follow.

mod reading;

use std::collections::BTreeSet;

use super::{Options, Severity, checks, collect, free_range};
use crate::facts::sample::debian_sample;
use crate::facts::{
    Account, Builder, DaemonFile, DropIn, Facts, FileKind, Flavour, ForeignIds, Group, Init, NixProcess,
    PathOwner, ProcessRole, RootJob, SeLinux, ShellSnippet, SingleUser, Unread,
};
use crate::types::{NixVersion, SubidRange, parse_subid_file};

/// Name of the case, what is changed, and the keys that come in addition to those of sound facts.
type Row = (&'static str, fn(&mut Facts, &mut Options), &'static [&'static str]);

fn keys(facts: &Facts, options: &Options) -> BTreeSet<String> {
    collect(facts, options).into_iter().map(|finding| finding.key).collect()
}

fn check(rows: &[Row]) {
    let sound = keys(&debian_sample(), &Options::default());
    for (name, change, expected) in rows {
        let (mut facts, mut options) = (debian_sample(), Options::default());
        change(&mut facts, &mut options);
        let found: Vec<_> = keys(&facts, &options).difference(&sound).cloned().collect();
        assert_eq!(found, *expected, "{name}");
    }
}

fn set(facts: &mut Facts, settings: &[(&str, &str)]) {
    let owned = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    facts.nix_conf[0].settings = Some(owned.collect());
}

fn owner(facts: &mut Facts, path: &str, gid: u32, mode: u32) {
    facts.owners.push(PathOwner { path: path.into(), uid: 0, gid, mode });
}

fn process(facts: &mut Facts, role: ProcessRole, age_seconds: u64) {
    facts.processes.push(NixProcess {
        pid: 77,
        uid: 30_001,
        role,
        command: "bash -e".to_owned(),
        age_seconds,
    });
}

fn account(facts: &mut Facts, name: &str, uid: u32, shell: &str) {
    let (home, shell) = ("/home/x".into(), shell.into());
    facts.users.push(Account { name: name.to_owned(), uid, gid: uid, home, shell });
}

fn version(facts: &mut Facts, text: &str) {
    facts.nix[0].version = NixVersion::parse(text);
}

#[test]
fn sound_facts_have_no_blocker_and_no_warning() {
    let found = collect(&debian_sample(), &Options::default());
    assert!(found.iter().all(|finding| finding.severity == Severity::Info), "{found:#?}");
}

#[test]
fn keys_are_unique_stable_and_plain() {
    let mut seen = BTreeSet::new();
    for check in checks() {
        assert!(seen.insert(check.key), "{} twice", check.key);
        let plain = check.key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        assert!(plain && !check.key.starts_with('-') && !check.key.ends_with('-'), "{}", check.key);
        assert!(!check.title.is_empty() && !check.title.ends_with('.'), "{}", check.key);
    }
}

#[test]
fn blockers_come_first_and_all_are_told() {
    let mut facts = debian_sample();
    facts.mounts[0].read_only = true;
    facts.mounts[0].noexec = true;
    facts.user_namespaces.max = Some(0);
    version(&mut facts, "2.33.0");
    let found = collect(&facts, &Options::default());
    let keys: Vec<_> = found.iter().map(|finding| finding.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "nix-too-old",
            "store-read-only",
            "userns-impossible",
            "store-noexec",
            "build-users-stay",
            "units-of-packages"
        ]
    );
    let old = &found[0];
    assert_eq!(old.commands, [["apt-get", "install", "--only-upgrade", "nix-bin", "nix-setup-systemd"]]);
    assert!(old.seen.contains("2.33.0"), "{}", old.seen);
}

fn single_user(facts: &mut Facts, name: &str) {
    facts.flavour = Flavour::OfficialSingleUser { owner: 1000 };
    facts.units.clear();
    facts.single_user = Some(SingleUser {
        uid: 1000,
        gid: 1000,
        name: Some(name.to_owned()),
        own_directories: vec![],
        nix: None,
    });
}

#[test]
fn flavours() {
    check(&[
        ("determinate", |f, _| f.flavour = Flavour::DeterminateNix, &["flavour-determinate-nix"]),
        ("lix", |f, _| (f.flavour = Flavour::Lix, version(f, "2.9.0")).1, &["flavour-lix"]),
        ("nixos", |f, _| f.flavour = Flavour::NixOs, &["flavour-nixos"]),
        ("darwin", |f, _| f.flavour = Flavour::NixDarwin, &["flavour-nix-darwin"]),
        ("system-manager", |f, _| f.flavour = Flavour::SystemManager, &["flavour-system-manager"]),
        ("single", |f, _| single_user(f, "alice"), &["flavour-single-user"]),
        (
            "single, without a Nix",
            |f, _| (single_user(f, "alice"), f.nix.clear()).1,
            &["flavour-single-user", "single-user-nix-missing"],
        ),
        ("single, our own", |f, _| single_user(f, "nix"), &["flavour-single-user", "single-user-owner"]),
        (
            "single, old",
            |f, _| {
                single_user(f, "alice");
                version(f, "2.33.0");
            },
            &["flavour-single-user", "nix-too-old"],
        ),
        ("foreign", |f, _| f.flavour = Flavour::UnprivilegedForeign, &["flavour-foreign-unprivileged"]),
        ("unknown", |f, _| f.flavour = Flavour::Unknown, &["flavour-unknown"]),
        ("none", |f, _| (f.flavour, f.nix) = (Flavour::None, vec![]), &["nix-missing"]),
        ("official", |f, _| f.flavour = Flavour::OfficialMultiUser, &[]),
        ("installer", |f, _| f.flavour = Flavour::NixInstaller, &[]),
        ("determinate's, upstream", |f, _| f.flavour = Flavour::DeterminateUpstream, &[]),
        ("ours", |f, _| (f.flavour = Flavour::Unprivileged, account(f, "nix", 990, "/bin/false")).1, &[]),
    ]);
}

#[test]
fn versions() {
    check(&[
        ("2.33", |f, _| version(f, "2.33.9"), &["nix-too-old"]),
        ("2.34.0", |f, _| version(f, "2.34.0"), &["nix-vulnerable"]),
        ("2.34.6", |f, _| version(f, "2.34.6"), &["nix-vulnerable"]),
        ("2.34.7", |f, _| version(f, "2.34.7"), &[]),
        ("2.35", |f, _| version(f, "2.35.0"), &[]),
        ("none", |f, _| f.nix[0].version = None, &["nix-version-unknown"]),
    ]);
}

#[test]
fn the_kernel_and_init() {
    check(&[
        ("openrc", |f, _| f.init = Init::Other { name: "init".to_owned() }, &["no-systemd"]),
        (
            "container",
            |f, o| {
                f.init = Init::Other { name: "init".to_owned() };
                o.without_init = true;
            },
            &[],
        ),
        ("max 0", |f, _| f.user_namespaces.max = Some(0), &["userns-impossible"]),
        ("probe", |f, _| f.user_namespaces.probe = Err("no".to_owned()), &["userns-impossible"]),
        ("clone 0", |f, _| f.user_namespaces.unprivileged_clone = Some(false), &["userns-restricted"]),
        (
            "clone 0 explains the probe",
            |f, _| {
                f.user_namespaces.unprivileged_clone = Some(false);
                f.user_namespaces.probe = Err("no".to_owned());
            },
            &["userns-restricted"],
        ),
        (
            "apparmor",
            |f, _| {
                f.user_namespaces.apparmor_restricted = true;
                f.user_namespaces.apparmor_parser = true;
            },
            &["userns-restricted"],
        ),
        (
            "apparmor without its tools",
            |f, _| f.user_namespaces.apparmor_restricted = true,
            &["apparmor-parser-missing", "userns-restricted"],
        ),
        ("no lists, and no need", |f, _| f.store.as_mut().unwrap().access_lists = false, &[]),
        (
            "no lists",
            |f, _| {
                f.store.as_mut().unwrap().access_lists = false;
                set(f, &[("sandbox", "relaxed")]);
            },
            &["sandbox-off", "store-without-access-lists"],
        ),
        ("links", |f, _| f.protected_hardlinks = Some(false), &["hard-links-unprotected"]),
        ("an old kernel without that setting", |f, _| f.protected_hardlinks = None, &[]),
        ("an old kernel without the settings", |f, _| f.user_namespaces.max = None, &[]),
    ]);
}

#[test]
fn store_and_database() {
    check(&[
        ("ro", |f, _| f.mounts[0].read_only = true, &["store-read-only"]),
        ("nfs", |f, _| f.mounts[0].network = true, &["store-on-network"]),
        ("idmapped", |f, _| f.mounts[0].idmapped = true, &["store-idmapped"]),
        ("noexec", |f, _| f.mounts[0].noexec = true, &["store-noexec"]),
        ("nosuid is no matter", |f, _| f.mounts[0].nosuid = true, &[]),
        (
            "a mount below",
            |f, _| {
                let mut below = f.mounts[0].clone();
                (below.path, below.holds_store, below.read_only) =
                    ("/nix/var/nix/builds".into(), false, true);
                f.mounts.push(below);
            },
            &["mount-below-nix"],
        ),
        (
            "damaged",
            |f, _| f.database.as_mut().unwrap().integrity = Some("row 5".to_owned()),
            &["database-damaged"],
        ),
        ("unreadable", |f, _| f.database.as_mut().unwrap().integrity = None, &[]),
        ("schema", |f, _| f.database.as_mut().unwrap().schema = Some(11), &["database-schema-unknown"]),
        ("read-only", |f, _| f.read_only = vec!["/usr/local".into()], &["system-read-only"]),
        ("full", |f, _| f.backup_free_bytes = Some((80 << 20) - 1), &["disk-full"]),
        ("just enough", |f, _| f.backup_free_bytes = Some(80 << 20), &[]),
    ]);
}

#[test]
fn what_runs() {
    check(&[
        ("run", |_, o| o.another_run = Some("run 3 was interrupted".to_owned()), &["another-run"]),
        ("long", |f, _| process(f, ProcessRole::Build, 601), &["builds-running-too-long"]),
        ("young", |f, _| process(f, ProcessRole::Build, 600), &["builds-running"]),
        (
            "more time",
            |f, o| (o.drain_timeout_seconds = 3600, process(f, ProcessRole::Build, 601)).1,
            &["builds-running"],
        ),
        (
            "both",
            |f, _| (process(f, ProcessRole::Build, 601), process(f, ProcessRole::Build, 1)).1,
            &["builds-running", "builds-running-too-long"],
        ),
        ("client", |f, _| process(f, ProcessRole::Client, 9999), &["clients-connected"]),
    ]);
}

#[test]
fn accounts() {
    check(&[
        ("a person", |f, _| account(f, "nix", 1001, "/bin/bash"), &["account-taken"]),
        ("root again", |f, _| account(f, "nix", 0, "/bin/false"), &["account-taken"]),
        ("a system account", |f, _| account(f, "nix", 990, "/usr/sbin/nologin"), &["account-exists"]),
        (
            "another name",
            |f, o| (o.nix_user = "store".to_owned(), account(f, "nix", 1001, "/bin/bash")).1,
            &[],
        ),
        (
            "group",
            |f, _| f.groups.push(Group { name: "nix".to_owned(), gid: 5, members: vec![] }),
            &["group-exists"],
        ),
        ("delegated", |f, _| f.subgid = parse_subid_file("bob:872415232:1"), &["subid-range-taken"]),
        ("an account's id", |f, _| account(f, "svc", 872_415_300, "/bin/sh"), &["subid-range-taken"]),
        ("our own entry", |f, _| f.subuid = parse_subid_file("nix:872415232:8388608"), &[]),
        (
            "none free",
            |f, _| f.subuid = parse_subid_file("bob:100000:4000000000"),
            &["subid-range-none-free"],
        ),
    ]);
}

#[test]
fn the_next_free_range_is_aligned_and_meets_nobody() {
    let mut facts = debian_sample();
    let wanted = SubidRange::NIX_DEFAULT;
    assert_eq!(free_range(&facts, wanted, "nix"), Some(wanted));
    facts.subuid = parse_subid_file("a:872415232:10\nb:880800000:5\n");
    let found = free_range(&facts, wanted, "nix").unwrap();
    assert_eq!((found.start % SubidRange::SLOT, found.count), (0, wanted.count));
    assert!(
        found.start > 880_800_000 && found.start < 880_800_000 + 65_536,
        "the first that fits: {found:?}"
    );
    facts.subuid = parse_subid_file("a:872415232:1000000000\n");
    let found = free_range(&facts, wanted, "nix").unwrap();
    assert_eq!(found.start, 0x0008_0000, "below when there is nothing above");
}

#[test]
fn settings() {
    check(&[
        ("root's conf", |f, _| owner(f, "/root/.config/nix/nix.conf", 0, 0o644), &["root-nix-conf"]),
        (
            "drop-in",
            |f, _| f.units[0].drop_ins.push(DropIn { path: "/x.conf".into(), text: String::new() }),
            &["unit-drop-ins"],
        ),
        ("no sandbox", |f, _| set(f, &[("sandbox", "false")]), &["sandbox-off"]),
        ("relaxed", |f, _| set(f, &[("build-use-sandbox", "relaxed")]), &["sandbox-off"]),
        ("a later one wins", |f, _| set(f, &[("sandbox", "false"), ("sandbox", "true")]), &[]),
        ("fallback", |f, _| set(f, &[("sandbox-fallback", "true")]), &["sandbox-fallback"]),
        ("cgroups", |f, _| set(f, &[("use-cgroups", "true")]), &["builds-in-cgroups"]),
        (
            "a proxy",
            |f, _| {
                let text = "[Service]\nEnvironment=https_proxy=http://p\n".to_owned();
                f.units[0].drop_ins.push(DropIn { path: "/x.conf".into(), text });
            },
            &["proxies-carried-over", "unit-drop-ins"],
        ),
        (
            "unread",
            |f, _| f.unread.push(Unread { what: "/root".to_owned(), why: "no".to_owned() }),
            &["not-everything-seen"],
        ),
    ]);
}
