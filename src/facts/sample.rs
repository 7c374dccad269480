//! Facts of a sound Debian machine, for tests that change one thing and look what follows.

use super::*;
use crate::types::{NixVersion, SubidEntry, UnitName};

/// Debian forky with `nix-bin` and `nix-setup-systemd` 2.34.8, used for a while, as `gather` sees it.
pub fn debian_sample() -> Facts {
    let unit = |name: &str| Unit {
        name: UnitName::parse(name).unwrap(),
        fragment: Some(format!("/usr/lib/systemd/system/{name}").into()),
        real_fragment: Some(format!("/usr/lib/systemd/system/{name}").into()),
        drop_ins: vec![],
        file_state: "enabled".to_owned(),
        active_state: "active".to_owned(),
        user: None,
        capabilities: None,
        exec_start: None,
        listen: vec![],
        socket_mode: None,
        socket_group: None,
    };
    let account = |name: &str, uid, gid, home: &str, shell: &str| Account {
        name: name.to_owned(),
        uid,
        gid,
        home: home.into(),
        shell: shell.into(),
    };
    let group = |name: &str, gid, members: Vec<String>| Group { name: name.to_owned(), gid, members };
    let owner = |path: &str, gid, mode| PathOwner { path: path.into(), uid: 0, gid, mode };
    let nixbld = |number: u32| (format!("nixbld{number}"), 979 + number);
    let builders: Vec<_> = (1..=10).map(nixbld).collect();
    let names: Vec<_> = builders.iter().map(|(name, _)| name.clone()).collect();
    let mut users = vec![
        account("root", 0, 0, "/root", "/bin/bash"),
        account("nobody", 65_534, 65_534, "/nonexistent", "/usr/sbin/nologin"),
        account("alice", 1000, 1000, "/home/alice", "/bin/bash"),
    ];
    users.extend(
        builders.iter().map(|(name, uid)| account(name, *uid, 989, "/var/empty", "/usr/sbin/nologin")),
    );
    Facts {
        os: Os {
            family: "linux".to_owned(),
            id: "debian".to_owned(),
            name: "Debian GNU/Linux forky/sid".to_owned(),
            kernel: "6.18.0-1-amd64".to_owned(),
            arch: "x86_64".to_owned(),
            container: None,
        },
        init: Init::Systemd { version: Some(262) },
        flavour: Flavour::Packages {
            distribution: "debian".to_owned(),
            packages: vec![
                "nix-bin 2.34.8+dfsg-1+b1".to_owned(),
                "nix-setup-systemd 2.34.8+dfsg-1".to_owned(),
            ],
        },
        single_user: None,
        nix: vec![NixBinary {
            path: "/usr/bin/nix-daemon".into(),
            real_path: "/usr/bin/nix".into(),
            version: NixVersion::parse("2.34.8"),
            provider: "dpkg: nix-bin 2.34.8+dfsg-1+b1".to_owned(),
            runs_daemon: true,
        }],
        store: Some(Store {
            path: "/nix/store".into(),
            state: "/nix/var/nix".into(),
            uid: 0,
            gid: 989,
            mode: 0o1775,
            free_bytes: 50 << 30,
            used_inodes: 500_000,
            access_lists: true,
        }),
        database: Some(Database {
            path: "/nix/var/nix/db/db.sqlite".into(),
            schema: Some(10),
            integrity: Some("ok".to_owned()),
            valid_paths: Some(1234),
            bytes: 8 << 20,
            uid: 0,
        }),
        build_users: BuildUsers { group: Some("nixbld".to_owned()), gid: Some(989), members: builders },
        units: vec![
            Unit { exec_start: Some("/usr/bin/nix-daemon".into()), ..unit("nix-daemon.service") },
            Unit { listen: vec!["/nix/var/nix/daemon-socket/socket".into()], ..unit("nix-daemon.socket") },
        ],
        nix_conf: vec![ConfFile {
            path: "/etc/nix/nix.conf".into(),
            included_by: None,
            optional: false,
            position: 0,
            settings: Some(vec![("sandbox".to_owned(), "true".to_owned())]),
            uid: 0,
            gid: 0,
            mode: 0o644,
        }],
        daemon_files: vec![DaemonFile {
            kind: FileKind::Conf,
            named_by: "nix.conf".to_owned(),
            path: "/etc/nix/nix.conf".into(),
            real: "/etc/nix/nix.conf".into(),
            directory: false,
            uid: 0,
            gid: 0,
            mode: 0o644,
            closed_directory: None,
        }],
        builders: vec![],
        root_jobs: vec![],
        access_control: AccessControl { selinux: SeLinux::Off, apparmor: false, apparmor_profiles: vec![] },
        foreign_ids: vec![],
        shell_snippets: vec![ShellSnippet {
            path: "/usr/lib/environment.d/nix-daemon.conf".into(),
            sources: vec!["/nix/var/nix/profiles/default/bin".into()],
            read_by_root: false,
        }],
        processes: vec![NixProcess {
            pid: 46,
            uid: 0,
            role: ProcessRole::Daemon,
            command: "nix-daemon --daemon".to_owned(),
            age_seconds: 3600,
        }],
        mounts: vec![Mount {
            path: "/".into(),
            fs_type: "ext4".to_owned(),
            source: "/dev/vda1".to_owned(),
            read_only: false,
            noexec: false,
            nosuid: false,
            network: false,
            idmapped: false,
            holds_store: true,
        }],
        user_namespaces: UserNamespaces {
            max: Some(63_000),
            unprivileged_clone: Some(true),
            apparmor_restricted: false,
            apparmor_parser: false,
            probe: Ok(()),
        },
        protected_hardlinks: Some(true),
        subuid: parse("alice:100000:65536\n"),
        subgid: parse("alice:100000:65536\n"),
        owners: vec![
            owner("/etc/nix", 0, 0o755),
            owner("/etc/nix/nix.conf", 0, 0o644),
            owner("/nix", 0, 0o755),
            owner("/nix/store", 989, 0o1775),
            owner("/nix/var", 0, 0o755),
            owner("/nix/var/log", 0, 0o755),
            owner("/nix/var/log/nix", 0, 0o755),
            owner("/nix/var/nix", 0, 0o755),
            owner("/nix/var/nix/daemon-socket", 997, 0o770),
            owner("/nix/var/nix/daemon-socket/socket", 0, 0o666),
            owner("/nix/var/nix/db", 0, 0o755),
            owner("/nix/var/nix/gc.lock", 0, 0o600),
            owner("/nix/var/nix/gcroots", 0, 0o755),
            owner("/nix/var/nix/gcroots/per-user", 0, 0o1777),
            owner("/nix/var/nix/profiles", 0, 0o755),
            owner("/nix/var/nix/profiles/per-user", 0, 0o1777),
            owner("/nix/var/nix/temproots", 0, 0o755),
            owner("/nix/var/nix/userpool", 0, 0o755),
        ],
        users,
        groups: vec![
            group("root", 0, vec![]),
            group("nogroup", 65_534, vec![]),
            group("nixbld", 989, names),
            group("nix-users", 997, vec!["alice".to_owned()]),
            group("alice", 1000, vec![]),
        ],
        read_only: vec![],
        backup_free_bytes: Some(20 << 30),
        mac: None,
        unread: vec![],
    }
}

fn parse(text: &str) -> Vec<SubidEntry> {
    crate::types::parse_subid_file(text)
}
