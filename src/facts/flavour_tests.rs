//! Every flavour, by a tree of files as its installer leaves it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{Facts, Flavour, Machine, gather};

/// A directory that looks like a machine. `#` in a path stands for a store hash.
pub(super) struct Tree {
    root: tempfile::TempDir,
    owners: Vec<(&'static str, u32)>,
    outputs: Vec<(&'static str, String)>,
}

const STORE_UNITS: &str = "/nix/var/nix/profiles/default/lib/systemd/system";

impl Tree {
    pub(super) fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap(), owners: vec![], outputs: vec![] }
            .file("/etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian\"\n")
            .file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n")
            .file("/etc/group", "root:x:0:\n")
    }

    fn place(&self, path: &str) -> std::path::PathBuf {
        let path = path.replace('#', &"0".repeat(32));
        let place = self.root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    }

    pub(super) fn file(self, path: &str, text: &str) -> Self {
        fs::write(self.place(path), text).unwrap();
        self
    }

    pub(super) fn link(self, path: &str, target: &str) -> Self {
        symlink(target.replace('#', &"0".repeat(32)), self.place(path)).unwrap();
        self
    }

    pub(super) fn owner(mut self, path: &'static str, uid: u32) -> Self {
        self.owners.push((path, uid));
        self
    }

    pub(super) fn output(mut self, command: &'static str, said: impl Into<String>) -> Self {
        self.outputs.push((command, said.into()));
        self
    }

    /// A store and a database.
    pub(super) fn store(self) -> Self {
        let tree = self.file("/nix/store/.links/x", "").file("/nix/var/nix/db/schema", "10");
        let db = rusqlite::Connection::open(tree.place("/nix/var/nix/db/db.sqlite")).unwrap();
        db.execute_batch("CREATE TABLE ValidPaths (id INTEGER); INSERT INTO ValidPaths VALUES (1)").unwrap();
        tree
    }

    /// What all multi-user installers leave: build users, a default profile and units linked into it.
    fn multi_user(self, package: &str) -> Self {
        let nix = format!("/nix/store/#-{package}");
        self.store()
            .file(
                "/etc/passwd",
                "root:x:0:0::/root:/bin/sh\nnixbld1:x:30001:30000::/var/empty:/sbin/nologin\n",
            )
            .file("/etc/group", "root:x:0:\nnixbld:x:30000:nixbld1\n")
            .file(&format!("{nix}/bin/nix"), "")
            .link(&format!("{nix}/bin/nix-daemon"), "nix")
            .file(
                &format!("{nix}/lib/systemd/system/nix-daemon.service"),
                "[Service]\nExecStart=@/nix/var/nix/profiles/default/bin/nix-daemon nix-daemon --daemon\n",
            )
            .file(
                &format!("{nix}/lib/systemd/system/nix-daemon.socket"),
                "[Socket]\nListenStream=/nix/var/nix/daemon-socket/socket\n",
            )
            .link("/nix/var/nix/profiles/default", "default-1-link")
            .link("/nix/var/nix/profiles/default-1-link", &nix)
            .link("/etc/systemd/system/nix-daemon.service", &format!("{STORE_UNITS}/nix-daemon.service"))
            .link("/etc/systemd/system/nix-daemon.socket", &format!("{STORE_UNITS}/nix-daemon.socket"))
            .file("/etc/nix/nix.conf", "\nbuild-users-group = nixbld\n")
    }

    /// Packages' files, at the distribution's places.
    fn in_usr(self) -> Self {
        self.file("/usr/bin/nix", "")
            .link("/usr/bin/nix-daemon", "nix")
            .file(
                "/usr/lib/systemd/system/nix-daemon.service",
                "[Service]\nExecStart=@/usr/bin/nix-daemon nix-daemon --daemon\n",
            )
            .file("/usr/lib/systemd/system/nix-daemon.socket", "[Socket]\nListenStream=/nix/x\n")
    }

    fn dpkg(self) -> Self {
        self.in_usr()
            .file("/var/lib/dpkg/info/nix-bin:amd64.list", "/.\n/usr/bin/nix\n/usr/bin/nix-daemon\n")
            .file(
                "/var/lib/dpkg/info/nix-setup-systemd.list",
                "/lib/systemd/system/nix-daemon.service\n/lib/systemd/system/nix-daemon.socket\n",
            )
            .file(
                "/var/lib/dpkg/status",
                "Package: nix-bin\nStatus: install ok installed\nVersion: 2.34.8+dfsg-1\n\n\
                 Package: nix-setup-systemd\nStatus: install ok installed\nVersion: 2.34.8+dfsg-1\n",
            )
    }

    pub(super) fn gather(&self) -> Facts {
        let mut machine = Machine::at(self.root.path()).owned_by_root();
        for (path, uid) in &self.owners {
            machine = machine.with_owner(path, *uid, *uid);
        }
        for (command, said) in &self.outputs {
            machine = machine.with_output(command, said);
        }
        gather(&machine)
    }
}

fn receipt(settings: &str) -> String {
    format!(r#"{{"version":"3.1.0","actions":[],"planner":{{"planner":"linux","settings":{settings}}}}}"#)
}

fn packages(distribution: &str, packages: &[&str]) -> Flavour {
    Flavour::Packages {
        distribution: distribution.to_owned(),
        packages: packages.iter().map(|package| (*package).to_owned()).collect(),
    }
}

const GATE_UNIT: &str = "[Service]\nUser=nix\nExecStart=/usr/local/libexec/nix-unroot/nix-daemon-gate\n";
const DS_HEADER: &str = "# Generated by https://github.com/DeterminateSystems/nix-installer.\n";
const NX_HEADER: &str = "# Generated by https://github.com/NixOS/nix-installer\n";

#[test]
fn official_script() {
    let facts = Tree::new().multi_user("nix-2.34.8").gather();
    assert_eq!(facts.flavour, Flavour::OfficialMultiUser);
    assert_eq!(facts.nix.len(), 1, "{:?}", facts.nix);
    assert_eq!(facts.nix[0].version.as_ref().unwrap().to_string(), "2.34.8");
    assert_eq!(facts.nix[0].provider, "/nix/var/nix/profiles/default");
    assert_eq!(facts.build_users.members, [("nixbld1".to_owned(), 30_001)]);
    assert_eq!(facts.database.as_ref().unwrap().valid_paths, Some(1));
    let fragment = facts.unit("nix-daemon.service").unwrap().real_fragment.as_ref().unwrap();
    assert!(fragment.starts_with("/nix/store"), "{fragment:?}");
    assert_eq!(facts.unread, []);

    let single = Tree::new()
        .store()
        .file("/nix/store/#-nix-2.34.8/bin/nix", "")
        .link("/home/alice/.nix-profile", "/nix/store/#-nix-2.34.8")
        .file("/nix/var/nix/profiles/per-user/alice/profile", "")
        .file("/nix/var/nix/profiles/per-user/bob/profile", "")
        .owner("/nix/store", 1000)
        .owner("/nix/var/nix/db/db.sqlite", 1000);
    let facts = single.gather();
    assert_eq!(facts.flavour, Flavour::OfficialSingleUser { owner: 1000 });
    assert_eq!(facts.nix[0].path, Path::new("/home/alice/.nix-profile/bin/nix"));
    let person = facts.single_user.unwrap();
    assert_eq!((person.uid, person.name.as_deref()), (1000, Some("alice")));
    assert_eq!(person.own_directories, [Path::new("profiles/per-user/alice")]);
    assert_eq!(person.nix.unwrap().base_name().get(33..), Some("nix-2.34.8"));
}

#[test]
fn installers_of_the_receipt_family() {
    let rows = [
        (NX_HEADER, r#"{"add_channel":false,"enable_flakes":true}"#, Flavour::NixInstaller),
        ("# changed\n", r#"{"add_channel":false}"#, Flavour::NixInstaller),
        (DS_HEADER, r#"{"determinate_nix":false}"#, Flavour::DeterminateUpstream),
        (DS_HEADER, "{}", Flavour::DeterminateUpstream),
        (DS_HEADER, r#"{"determinate_nix":true}"#, Flavour::DeterminateNix),
    ];
    for (header, settings, expected) in rows {
        let tree = Tree::new().multi_user("nix-2.34.8");
        let tree = tree.file("/nix/receipt.json", &receipt(settings)).file("/etc/nix/nix.conf", header);
        assert_eq!(tree.gather().flavour, expected, "{header} {settings}");
    }
    let unreadable = Tree::new()
        .multi_user("nix-2.34.8")
        .file("/nix/receipt.json", "{")
        .file("/etc/nix/nix.conf", NX_HEADER);
    assert_eq!(unreadable.gather().flavour, Flavour::NixInstaller);
}

#[test]
fn forks() {
    let determinate = Tree::new().multi_user("nix-2.34.8").file("/usr/local/bin/determinate-nixd", "");
    assert_eq!(determinate.gather().flavour, Flavour::DeterminateNix);
    let lix =
        Tree::new().multi_user("lix-2.93.1").file("/nix/receipt.json", &receipt(r#"{"enable_flakes":true}"#));
    let facts = lix.gather();
    assert_eq!(facts.flavour, Flavour::Lix);
    assert_eq!(facts.nix[0].version.as_ref().unwrap().to_string(), "2.93.1");
    let lix = Tree::new().multi_user("nix-2.34.8").file("/nix/lix-installer", "");
    assert_eq!(lix.gather().flavour, Flavour::Lix);
}

#[test]
fn distributions_packages() {
    let facts = Tree::new().store().dpkg().gather();
    let both = ["nix-bin 2.34.8+dfsg-1", "nix-setup-systemd 2.34.8+dfsg-1"];
    assert_eq!(facts.flavour, packages("debian", &both));
    assert_eq!(facts.nix[0].version.as_ref().unwrap().to_string(), "2.34.8");
    assert_eq!(facts.nix[0].provider, "dpkg: nix-bin 2.34.8+dfsg-1");
    assert_eq!(facts.nix.len(), 1);
    assert!(facts.nix[0].runs_daemon);

    let unused = Tree::new().dpkg().gather();
    assert!(matches!(unused.flavour, Flavour::Packages { .. }) && unused.store.is_none());

    let query = "rpm -qf --queryformat %{NAME} %{VERSION}-%{RELEASE}\\n ";
    let fedora = Tree::new()
        .store()
        .in_usr()
        .file("/etc/os-release", "ID=fedora\n")
        .file("/etc/group", "nixbld:x:985:nixbld-1\n")
        .file("/etc/passwd", "nixbld-1:x:985:985::/:/sbin/nologin\nnixbld-2:x:984:985::/:/sbin/nologin\n")
        .file("/usr/lib/sysimage/rpm/rpmdb.sqlite", "")
        .output(leak(format!("{query}/usr/bin/nix")), "nix 2.34.8-1.fc44\n")
        .output(leak(format!("{query}/usr/bin/nix-daemon")), "nix 2.34.8-1.fc44\n")
        .output(
            leak(format!("{query}/usr/lib/systemd/system/nix-daemon.service")),
            "nix-daemon 2.34.8-1.fc44\n",
        )
        .gather();
    assert_eq!(fedora.flavour, packages("fedora", &["nix 2.34.8-1.fc44", "nix-daemon 2.34.8-1.fc44"]));
    let members: Vec<_> = fedora.build_users.members.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(members, ["nixbld-2", "nixbld-1"], "by list and by primary group, in the order of uids");

    let arch = Tree::new()
        .store()
        .in_usr()
        .file("/etc/os-release", "ID=arch\n")
        .file("/etc/group", "nixbld:x:946:nixbld01,nixbld02\n")
        .file("/etc/passwd", "nixbld01:x:945:946::/:/x\nnixbld02:x:944:946::/:/x\n")
        .file(
            "/var/lib/pacman/local/nix-2.35.1-1/files",
            "%FILES%\nusr/bin/nix\nusr/lib/systemd/system/nix-daemon.socket\n",
        )
        .gather();
    assert_eq!(arch.flavour, packages("arch", &["nix 2.35.1-1"]));
    assert_eq!(arch.nix[0].version.as_ref().unwrap().to_string(), "2.35.1");
    assert_eq!(arch.build_users.members.len(), 2);
}

#[test]
fn an_official_install_over_packages_is_the_official_one() {
    let facts = Tree::new().dpkg().multi_user("nix-2.35.0").gather();
    assert_eq!(facts.flavour, Flavour::OfficialMultiUser);
    assert_eq!(facts.nix.len(), 2, "both are listed");
    assert!(facts.nix[0].real_path.starts_with("/nix/store") && facts.nix[0].runs_daemon);
}

#[test]
fn systems_that_own_their_configuration() {
    let nixos = Tree::new().multi_user("nix-2.34.8").file("/etc/NIXOS", "");
    assert_eq!(nixos.gather().flavour, Flavour::NixOs);
    let darwin = Tree::new()
        .store()
        .file("/System/Library/CoreServices/SystemVersion.plist", "")
        .link("/Library/LaunchDaemons/org.nixos.activate-system.plist", "/nix/store/x");
    let facts = darwin.gather();
    assert_eq!((facts.flavour, facts.os.family.as_str()), (Flavour::NixDarwin, "macos"));
    let manager = Tree::new()
        .multi_user("nix-2.34.8")
        .link("/nix/var/nix/profiles/system-manager-profiles/system-manager", "/nix/store/gone");
    assert_eq!(manager.gather().flavour, Flavour::SystemManager);
}

#[test]
fn unprivileged_ones() {
    let migrated = || {
        Tree::new()
            .store()
            .dpkg()
            .link("/etc/systemd/system/nix-daemon.service", "/dev/null")
            .file("/etc/systemd/system/nix-daemon-gate.service", GATE_UNIT)
    };
    let ours = migrated().owner("/nix/var/nix/db/db.sqlite", 990);
    assert_eq!(ours.gather().flavour, Flavour::Unprivileged);
    let half_done = migrated().gather();
    assert!(matches!(half_done.flavour, Flavour::Packages { .. }), "{:?}", half_done.flavour);

    let with_user = Tree::new()
        .multi_user("nix-2.34.8")
        .file("/etc/systemd/system/nix-daemon.service.d/user.conf", "[Service]\nUser=nix-daemon\n")
        .owner("/nix/store", 990);
    assert_eq!(with_user.gather().flavour, Flavour::UnprivilegedForeign);
    let wrapped = Tree::new().store().file(
        "/etc/systemd/system/nix-daemon.service",
        "[Service]\nExecStart=/usr/libexec/nix-nswrapper nix nix-daemon\n",
    );
    assert_eq!(wrapped.gather().flavour, Flavour::UnprivilegedForeign);
}

#[test]
fn nothing_and_something_unknown() {
    assert_eq!(Tree::new().gather().flavour, Flavour::None);
    assert_eq!(Tree::new().store().gather().flavour, Flavour::Unknown);
    let copied = Tree::new()
        .store()
        .file("/usr/local/bin/nix", "")
        .output("/usr/local/bin/nix --version", "nix (Nix) 2.30.1\n")
        .gather();
    assert_eq!(copied.flavour, Flavour::Unknown);
    assert_eq!(copied.nix[0].version.as_ref().unwrap().to_string(), "2.30.1");
    assert_eq!(copied.nix[0].provider, "/usr/local");
}

fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}
