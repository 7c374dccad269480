//! What the daemon reads, who builds for it, and what root runs.

use super::*;

fn daemon_file<'f>(
    facts: &'f mut Facts,
    kind: FileKind,
    path: &str,
    gid: u32,
    mode: u32,
) -> &'f mut DaemonFile {
    let (named_by, directory) = ("a-setting".to_owned(), false);
    let file = DaemonFile {
        kind,
        named_by,
        path: path.into(),
        real: path.into(),
        directory,
        uid: 0,
        gid,
        mode,
        closed_directory: None,
    };
    facts.daemon_files.push(file);
    facts.daemon_files.last_mut().unwrap()
}

#[test]
fn what_the_daemon_reads() {
    use FileKind::*;
    let secret: &[&str] = &["secrets-only-root-can-read"];
    fn add(f: &mut Facts, kind: FileKind, mode: u32) {
        daemon_file(f, kind, "/etc/nix/x", 0, mode);
    }
    check(&[
        ("netrc", |f, _| add(f, Netrc, 0o600), secret),
        ("readable netrc", |f, _| add(f, Netrc, 0o644), &[]),
        ("shared", |f, o| (o.share.netrc = true, add(f, Netrc, 0o600)).1, &["files-get-shared"]),
        ("another is shared", |f, o| (o.share.keys = true, add(f, Netrc, 0o600)).1, secret),
        (
            "a group's",
            |f, o| {
                o.share.netrc = true;
                daemon_file(f, Netrc, "/etc/nix/x", 50, 0o640);
            },
            secret,
        ),
        (
            "made at boot",
            |f, o| {
                o.share.netrc = true;
                daemon_file(f, Netrc, "/run/secrets/x", 0, 0o600);
            },
            secret,
        ),
        (
            "behind a closed door",
            |f, o| {
                o.share.keys = true;
                daemon_file(f, SigningKey, "/root/k", 0, 0o644).closed_directory = Some("/root".into());
            },
            secret,
        ),
        ("signing key", |f, _| add(f, SigningKey, 0o400), secret),
        ("certificate", |f, _| add(f, Certificate, 0o600), secret),
        ("list of builders", |f, _| add(f, Machines, 0o600), secret),
        ("ssh key", |f, _| add(f, SshKey, 0o600), secret),
        ("include", |f, _| add(f, Conf, 0o600), &["nix-conf-only-root-can-read"]),
        ("shared include", |f, o| (o.share.conf = true, add(f, Conf, 0o600)).1, &["files-get-shared"]),
        (
            "done already",
            |f, _| {
                f.flavour = Flavour::Unprivileged;
                f.groups.push(Group { name: "nix".to_owned(), gid: 991, members: vec![] });
                daemon_file(f, Netrc, "/etc/nix/netrc", 991, 0o640);
            },
            &[],
        ),
        ("hook", |f, _| set(f, &[("post-build-hook", "/h")]), &["hooks-ran-as-root"]),
        ("plugin", |f, _| set(f, &[("plugin-files", "/p")]), &["plugins-loaded"]),
        ("sandbox path", |f, _| add(f, SandboxPath, 0o770), &["sandbox-paths-closed"]),
        ("an open one", |f, _| add(f, SandboxPath, 0o755), &[]),
        ("aws", |f, _| owner(f, "/root/.aws/credentials", 0, 0o600), &["root-home-credentials"]),
        (
            "aws shared",
            |f, o| {
                o.share.aws = true;
                owner(f, "/root/.aws/credentials", 0, 0o600);
            },
            &["files-get-shared"],
        ),
        ("a builder", |f, _| builder(f), &["builders-over-ssh"]),
        ("a store", |f, _| set(f, &[("substituters", "ssh://h")]), &["builders-over-ssh"]),
        (
            "ssh shared",
            |f, o| {
                o.share.ssh = true;
                owner(f, "/root/.ssh/id_rsa", 0, 0o600);
                builder(f);
            },
            &["files-get-shared"],
        ),
        ("a key without a builder", |f, _| owner(f, "/root/.ssh/id_rsa", 0, 0o600), &[]),
    ]);
}

fn builder(facts: &mut Facts) {
    let uri = "ssh://b".to_owned();
    facts.builders.push(Builder { uri, key: None, list: None, over_ssh: true });
}

#[test]
fn what_else_had_a_say() {
    check(&[
        ("selinux", |f, _| f.access_control.selinux = SeLinux::Enforcing, &["selinux-enforcing"]),
        ("permissive", |f, _| f.access_control.selinux = SeLinux::Permissive, &[]),
        (
            "apparmor",
            |f, _| f.access_control.apparmor_profiles.push("/etc/apparmor.d/nix".into()),
            &["apparmor-confines-nix"],
        ),
        ("kvm", |f, _| owner(f, "/dev/kvm", 50, 0o660), &["kvm-closed"]),
        ("open kvm", |f, _| owner(f, "/dev/kvm", 50, 0o666), &[]),
        (
            "a timer",
            |f, _| {
                let command = "nix-collect-garbage -d".to_owned();
                f.root_jobs.push(RootJob { path: "/etc/systemd/system/gc.service".into(), command });
            },
            &["root-jobs-run-nix"],
        ),
        ("a receipt", |f, _| owner(f, "/nix/receipt.json", 0, 0o644), &["installers-leftovers"]),
        (
            "a directory's account",
            |f, _| {
                let range = SubidRange::new(872_480_768, 1).unwrap();
                f.foreign_ids.push(ForeignIds { range, holder: "the account ldap".to_owned() });
            },
            &["subid-range-taken"],
        ),
    ]);
}

#[test]
fn what_root_executes() {
    fn snippet(f: &mut Facts, source: &str, read_by_root: bool) {
        let sources = vec![source.into()];
        f.shell_snippets.push(ShellSnippet { path: "/etc/profile.d/nix.sh".into(), sources, read_by_root });
    }
    check(&[
        ("snippet", |f, _| snippet(f, "/nix/a.sh", true), &["root-shell-sources-nix"]),
        ("root's profile", |f, _| snippet(f, "/root/.nix-profile/a.sh", true), &["root-shell-sources-nix"]),
        ("not read by root", |f, _| snippet(f, "/nix/a.sh", false), &[]),
        ("shell", |f, _| f.users[0].shell = "/nix/store/x/bin/zsh".into(), &["root-login-shell-in-nix"]),
        ("an ordinary user's shell", |f, _| f.users[2].shell = "/nix/store/x/bin/zsh".into(), &[]),
        (
            "unit",
            |f, _| {
                let mut unit = f.units[0].clone();
                unit.name = crate::types::UnitName::parse("report.service").unwrap();
                unit.exec_start = Some("/nix/store/x/bin/report".into());
                f.units.push(unit);
            },
            &["root-unit-runs-nix"],
        ),
        ("the daemon itself", |f, _| f.units[0].exec_start = Some("/nix/store/x/bin/nix-daemon".into()), &[]),
    ]);
}

#[test]
fn after_a_migration_a_remedy_is_commands_that_keep_the_other_bits() {
    let mut facts = debian_sample();
    facts.flavour = Flavour::Unprivileged;
    daemon_file(&mut facts, FileKind::Netrc, "/etc/nix/netrc", 0, 0o400);
    let found = collect(&facts, &Options { nix_user: "store".to_owned(), ..Options::default() });
    let secrets = found.iter().find(|finding| finding.key == "secrets-only-root-can-read").unwrap();
    assert_eq!(secrets.commands, [["chgrp", "store", "/etc/nix/netrc"], ["chmod", "440", "/etc/nix/netrc"]]);
}
