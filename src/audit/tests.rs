//! A machine in a directory, clean but for what a row plants.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::*;
use crate::facts::sample::debian_sample;
use crate::facts::{Account, Group};
use crate::plan::Plan;

const NIX: u32 = 991;

struct Fake {
    dir: tempfile::TempDir,
    machine: Option<Machine>,
}

impl Fake {
    /// A migrated machine without a way to root.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::at(dir.path()).owned_by_root();
        let mut fake = Self { dir, machine: Some(machine) };
        fake.write(
            "/etc/passwd",
            "root:x:0:0::/root:/bin/bash\nnix:x:991:991::/var/empty:/usr/sbin/nologin\n",
        );
        fake.write("/etc/group", "root:x:0:\nnix:x:991:\nsudo:x:27:\n");
        fake.write("/bin/bash", "");
        fake.write("/usr/bin/tool", "");
        fake.write("/etc/profile", "PATH=/usr/bin:/bin\n. /etc/profile.d/good.sh\n");
        fake.write("/etc/profile.d/good.sh", "export X=1\n");
        fake.write("/etc/systemd/system/good.service", "[Service]\nExecStart=/usr/bin/tool\n");
        for path in ["/nix/store/x", "/nix/store/x/bin", "/nix/store/x/file"] {
            fake = fake.nixs(path);
        }
        fake
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, target: &str, path: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    fn mode(&self, path: &str, mode: u32) {
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Makes a path that the Nix user owns: a directory when it has no extension and no file is there.
    fn nixs(mut self, path: &str) -> Self {
        if !self.at(path).exists() {
            match path.ends_with("file") {
                true => self.write(path, "text\n"),
                false => fs::create_dir_all(self.at(path)).unwrap(),
            }
        }
        self.machine = self.machine.take().map(|machine| machine.with_owner(path, NIX, NIX));
        self
    }

    fn hits(&self) -> Vec<Hit> {
        look(self.machine.as_ref().unwrap(), &subject()).0
    }
}

fn subject() -> Subject {
    let mut facts = debian_sample();
    facts.users.push(Account {
        name: "nix".to_owned(),
        uid: NIX,
        gid: NIX,
        home: "/var/empty".into(),
        shell: "/usr/sbin/nologin".into(),
    });
    facts.groups.push(Group { name: "nix".to_owned(), gid: NIX, members: vec![] });
    facts.subuid = crate::types::parse_subid_file("nix:872415232:8388608\n");
    Subject::user(&facts, "nix").unwrap()
}

#[test]
fn a_clean_machine_has_no_hit() {
    assert_eq!(Fake::new().hits(), []);
}

/// What is planted, and the key and name of the one hit.
type Row = (fn(&Fake), &'static str, &'static str);

#[test]
fn every_source_finds_what_is_planted() {
    let rows: &[Row] = &[
        (
            |f| f.link("/nix/store/x/file", "/etc/systemd/system/a.service"),
            "unit-file",
            "/etc/systemd/system/a.service",
        ),
        (
            |f| f.link("/nix/store/x/file", "/etc/systemd/system/good.service.d/a.conf"),
            "unit-file",
            "/etc/systemd/system/good.service.d/a.conf",
        ),
        (
            |f| f.write("/etc/systemd/system/a.service", "[Service]\nExecStart=-/nix/store/x/file\n"),
            "unit-program",
            "/nix/store/x/file",
        ),
        (
            |f| {
                f.write(
                    "/etc/systemd/system/a.service",
                    "[Service]\nExecStart=/bin/sh -c 'x; /nix/store/x/file'\n",
                )
            },
            "unit-program",
            "/nix/store/x/file",
        ),
        (
            |f| {
                f.write(
                    "/etc/systemd/system/a.service",
                    "[Service]\nUser=alice\nExecStart=/usr/bin/tool\nExecStartPre=+/nix/store/x/file\n",
                )
            },
            "unit-program",
            "/nix/store/x/file",
        ),
        (
            |f| {
                f.write(
                    "/etc/systemd/system/a.service",
                    "[Service]\nUser=alice\nAmbientCapabilities=CAP_SETUID\nExecStart=/nix/store/x/file\n",
                )
            },
            "unit-program",
            "/nix/store/x/file",
        ),
        (
            |f| {
                f.write(
                    "/etc/systemd/system/a.service",
                    "[Service]\nEnvironmentFile=-/nix/store/x/file\nExecStart=/usr/bin/tool\n",
                )
            },
            "unit-program",
            "/nix/store/x/file",
        ),
        (
            |f| f.link("/nix/store/x/file", "/etc/systemd/system-generators/a"),
            "systemd-generator",
            "/etc/systemd/system-generators/a",
        ),
        (|f| f.link("/nix/store/x/file", "/etc/tmpfiles.d/a.conf"), "policy-file", "/etc/tmpfiles.d/a.conf"),
        (|f| f.link("/nix/store/x/file", "/etc/sysusers.d/a.conf"), "policy-file", "/etc/sysusers.d/a.conf"),
        (
            |f| f.link("/nix/store/x/file", "/etc/polkit-1/rules.d/a.rules"),
            "policy-file",
            "/etc/polkit-1/rules.d/a.rules",
        ),
        (|f| f.link("/nix/store/x", "/etc/modprobe.d"), "policy-file", "/etc/modprobe.d"),
        (|f| f.link("/nix/store/x/file", "/etc/sudoers"), "policy-file", "/etc/sudoers"),
        (
            |f| f.write("/etc/udev/rules.d/a.rules", "RUN+=\"/nix/store/x/file\"\n"),
            "policy-program",
            "/nix/store/x/file",
        ),
        (
            |f| f.write("/usr/share/dbus-1/system-services/a.service", "Exec=/nix/store/x/file\n"),
            "policy-program",
            "/nix/store/x/file",
        ),
        (|f| f.write("/etc/cron.d/a", "* * * * * root /nix/store/x/file\n"), "cron-job", "/nix/store/x/file"),
        (|f| f.link("/nix/store/x/file", "/etc/cron.daily/a"), "cron-job", "/etc/cron.daily/a"),
        (|f| f.link("/nix/store/x/file", "/etc/profile.d/a.sh"), "shell-startup", "/etc/profile.d/a.sh"),
        (
            |f| f.write("/etc/bash.bashrc", "if true; then . '/nix/store/x/file'; fi\n"),
            "shell-sources",
            "/nix/store/x/file",
        ),
        (
            |f| {
                f.write(
                    "/etc/profile.d/good.sh",
                    ". /etc/other
",
                );
                f.write(
                    "/etc/other",
                    "source /nix/store/x/file
",
                );
            },
            "shell-sources",
            "/nix/store/x/file",
        ),
    ];
    check(rows);
}

#[test]
fn every_other_source_finds_what_is_planted() {
    check(&[
        (
            |f| f.write("/root/.bashrc", "export PATH=/nix/store/x/bin:$PATH\n"),
            "search-path",
            "/nix/store/x/bin",
        ),
        (
            |f| f.write("/etc/sudoers", "Defaults secure_path = \"/usr/bin:/nix/store/x/bin\"\n"),
            "search-path",
            "/nix/store/x/bin",
        ),
        (|f| f.write("/etc/crontab", "PATH=/nix/store/x/bin\n"), "search-path", "/nix/store/x/bin"),
        (
            |f| f.write("/etc/environment.d/a.conf", "PATH=/nix/store/x/bin:$PATH\n"),
            "search-path",
            "/nix/store/x/bin",
        ),
        (|f| f.link("/nix/store/x/file", "/usr/local/bin/tool"), "program", "/usr/local/bin/tool"),
        (|f| f.link("/nix/store/x", "/root/.nix-profile"), "root-profile", "/root/.nix-profile/bin"),
        (|f| f.write("/etc/ld.so.conf.d/a.conf", "/nix/store/x\n"), "loader", "/nix/store/x"),
        (|f| f.write("/etc/ld.so.preload", "/nix/store/x/file\n"), "loader", "/nix/store/x/file"),
        (
            |f| f.write("/etc/pam.d/login", "auth required /nix/store/x/pam.so\n"),
            "pam-module",
            "/nix/store/x/pam.so",
        ),
        (|f| f.write("/etc/shells", "/bin/bash\n/nix/store/x/file\n"), "shells-list", "/nix/store/x/file"),
        (|f| f.write("/etc/group", "sudo:x:27:alice,nix\n"), "privileged-account", "/etc/group"),
        (
            |f| f.write("/etc/sudoers.d/a", "%nix ALL=(ALL) NOPASSWD: ALL\n"),
            "privileged-account",
            "/etc/sudoers.d/a",
        ),
        (
            |f| f.write("/etc/doas.conf", "permit nopass nix as root\n"),
            "privileged-account",
            "/etc/doas.conf",
        ),
        (
            |f| f.write("/proc/sys/kernel/core_pattern", "|/nix/store/x/file %p\n"),
            "kernel-helper",
            "/nix/store/x/file",
        ),
        (
            |f| f.write("/proc/sys/kernel/modprobe", "/nix/store/x/file\n"),
            "kernel-helper",
            "/nix/store/x/file",
        ),
        (
            |f| f.write("/proc/sys/fs/binfmt_misc/a", "enabled\ninterpreter /nix/store/x/file\nflags: F\n"),
            "kernel-helper",
            "/nix/store/x/file",
        ),
    ]);
}

fn check(rows: &[Row]) {
    for (plant, key, name) in rows {
        let fake = Fake::new();
        plant(&fake);
        let hits = fake.hits();
        let found: Vec<_> = hits.iter().map(|hit| (hit.key.as_str(), hit.name.to_str().unwrap())).collect();
        // A profile's directory for programs is one that a link elsewhere may lead to as well.
        assert!(found.contains(&(*key, *name)), "{key} {name}: {found:?}");
        assert!(hits.len() == 1 || *key == "pam-module", "{key} {name}: {found:?}");
    }
}

/// Who may change what a name leads to, whatever the name is for.
#[test]
fn names_are_walked_component_by_component() {
    let hit = |plant: &dyn Fn(Fake) -> Fake| {
        let fake = plant(Fake::new());
        let reader = Reader::new(fake.machine.as_ref().unwrap());
        resolve::resolve(&reader, &subject(), Path::new("/a/b/c"))
            .map(|weak| weak.chain.last().cloned().unwrap())
    };
    let with = |plant: fn(&Fake)| move |fake: Fake| (plant(&fake), fake).1;
    let base = |fake: Fake| (fake.write("/a/b/c", ""), fake).1;
    assert_eq!(hit(&base), None);
    assert_eq!(hit(&|fake| fake), None, "what is not there, in a directory of root's");
    for path in ["/a/b/c", "/a/b", "/a"] {
        let why = hit(&|fake| base(fake).nixs(path)).unwrap();
        assert!(why.starts_with(&format!("{path} belongs to")), "{why}");
    }
    let why = hit(&with(|f| (f.write("/a/b/c", ""), f.mode("/a/b", 0o777)).1)).unwrap();
    assert!(why.contains("everybody's"), "{why}");
    assert_eq!(
        hit(&with(|f| (f.write("/a/b/c", ""), f.mode("/a/b", 0o1777)).1)),
        None,
        "sticky: the entry is root's"
    );
    assert!(
        hit(&with(|f| (fs::create_dir_all(f.at("/a/b")).unwrap(), f.mode("/a/b", 0o1777)).1)).is_some(),
        "to be made"
    );
    let link = |f: &Fake| f.link("../x", "/a/b");
    let linked = |fake: Fake| (link(&fake), fake.write("/x/c", ""), fake).2;
    assert_eq!(hit(&linked), None);
    assert!(hit(&|fake| linked(fake).nixs("/x/c")).is_some());
    assert!(hit(&with(|f| f.link("c", "/a/b/c"))).is_none(), "a link to itself leads nowhere");
    let group = |mode: u32| {
        hit(&|fake| {
            let mut fake = base(fake);
            fake.mode("/a/b/c", mode);
            fake.machine = fake.machine.take().map(|machine| machine.with_owner("/a/b/c", 0, NIX));
            fake
        })
    };
    assert!(group(0o664).is_some());
    assert_eq!(group(0o644), None);
    // user::rw- user:991:rw- group::r-- mask::rw- other::r--
    let entries = [(1, 6, u32::MAX), (2, 6, NIX), (4, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 4, u32::MAX)];
    let list = |mask: u16| -> Vec<u8> {
        let entry = |(tag, permissions, id): (u16, u16, u32)| {
            let permissions = if tag == 0x10 { mask } else { permissions };
            [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        [2_u32.to_le_bytes().to_vec(), entries.iter().flat_map(|one| entry(*one)).collect()].concat()
    };
    assert!(acl::lets_write(&list(6), &subject(), 0));
    assert!(!acl::lets_write(&list(4), &subject(), 0), "the mask takes it away");
    assert!(acl::lets_write(&[1, 2], &subject(), 0), "what is not understood counts");
}

#[test]
fn before_a_migration_roots_store_is_the_heirs() {
    let dir = tempfile::tempdir().unwrap();
    let fake = Fake { machine: Some(Machine::at(dir.path()).owned_by_root()), dir };
    fake.write("/nix/store/x/file", "text\n");
    fake.link("/nix/store/x/file", "/etc/tmpfiles.d/a.conf");
    let facts = debian_sample();
    let machine = fake.machine.as_ref().unwrap();
    assert_eq!(look(machine, &Subject::build_users(&facts)).0, []);
    let hits = look(machine, &Subject::heir(&facts)).0;
    assert_eq!(hits.len(), 1, "{hits:#?}");
    assert_eq!(hits[0].chain[0], "/etc/tmpfiles.d/a.conf is a link to /nix/store/x/file");
    assert!(hits[0].chain[1].ends_with("the Nix user that a migration makes"), "{hits:#?}");
}

/// The Nix user may turn its file into a link to one that only root may read.
#[test]
fn what_is_not_the_subjects_is_not_copied() {
    let fake = Fake::new();
    fake.write("/etc/shadow", "root:secret:\n");
    fake.link("/etc/shadow", "/nix/store/x/bin/link");
    fake.link("/nix/store/x/bin/link", "/etc/tmpfiles.d/a.conf");
    fake.link("/nix/store/x/file", "/etc/tmpfiles.d/b.conf");
    let hits = fake.hits();
    let copied: Vec<_> = hits.iter().map(|hit| (hit.name.to_str().unwrap(), hit.fix.is_some())).collect();
    assert_eq!(copied, [("/etc/tmpfiles.d/a.conf", false), ("/etc/tmpfiles.d/b.conf", true)]);
    assert!(!serde_json::to_string(&hits).unwrap().contains("secret"));
}

#[test]
fn safe_remedies_become_a_plan() {
    let fake = Fake::new();
    assert_eq!(fix_plan(&fake.hits()).unwrap(), None);
    fake.link("/nix/store/x/file", "/etc/systemd/system/a.service");
    fake.write("/etc/bash.bashrc", "if true; then\n  . '/nix/store/x/file'\nfi\n");
    fake.write("/etc/environment.d/a.conf", "PATH=/nix/store/x/bin:$PATH\n");
    fake.link("/nix/store/x/file", "/usr/local/bin/tool");
    let plan = fix_plan(&fake.hits()).unwrap().unwrap();
    let ids: Vec<_> = plan.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "reload-for-rollback-1",
            "guard-1",
            "copy-1",
            "make-config-1",
            "make-environment-1",
            "set-search-path-1",
            "reload-units-1"
        ]
    );
    let text = plan.to_toml().unwrap();
    assert!(text.contains("= 0 ] || . '/nix/store/x/file'; }") && text.contains("text\n"), "{text}");
    assert_eq!(Plan::read(&text).unwrap(), plan);
}
