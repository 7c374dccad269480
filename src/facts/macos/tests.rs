//! Macs as installers leave them: files, and what Apple's tools say.
//!
//! Where the forms come from: dscl's from the `-plist` output that Puppet's directoryservice provider and the npm package `passwd-user`
//! parse; diskutil's from the keys that NixOS/nix-installer and Munki read; `launchctl print` from nix-darwin issue 1033;
//! `security find-generic-password` from security(1) and the transcripts in NixOS/nix's issues on encrypted volumes.

use super::super::flavour_tests::Tree;
use super::super::{Facts, Flavour};
use super::{HOOK, Mac};
use crate::findings::{self, collect};

const UUID: &str = "5BFF8A2F-1F4C-4A6E-9B6C-1D2E3F405162";
const DSCL_USERS: &str =
    "dscl -plist . -readall /Users RecordName UniqueID PrimaryGroupID NFSHomeDirectory UserShell";
const DSCL_GROUPS: &str = "dscl -plist . -readall /Groups RecordName PrimaryGroupID GroupMembership";
const SECURITY: &str = "security find-generic-password -a Nix Store -s 5BFF8A2F-1F4C-4A6E-9B6C-1D2E3F405162 /Library/Keychains/System.keychain";
const SECURITY_BY_NAME: &str =
    "security find-generic-password -a Nix Store -s Nix Store /Library/Keychains/System.keychain";

fn plist(body: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n{body}\n</plist>\n"
    )
}

fn record(attributes: &[(&str, &str)]) -> String {
    let attribute = |(name, value): &(&str, &str)| {
        format!("<key>dsAttrTypeStandard:{name}</key><array><string>{value}</string></array>")
    };
    format!("<dict>{}</dict>", attributes.iter().map(attribute).collect::<String>())
}

fn user(name: &str, uid: &str, gid: &str, home: &str) -> String {
    record(&[
        ("NFSHomeDirectory", home),
        ("PrimaryGroupID", gid),
        ("RecordName", name),
        ("UniqueID", uid),
        ("UserShell", "/usr/bin/false"),
    ])
}

fn users(more: &str) -> String {
    let own = [user("nobody", "-2", "-2", "/var/empty"), user("root", "0", "0", "/var/root")].concat();
    plist(&format!("<array>{own}{}{more}</array>", user("alice", "501", "20", "/Users/alice")))
}

fn build_users(numbers: std::ops::RangeInclusive<u32>, base: u32) -> String {
    numbers
        .map(|number| user(&format!("_nixbld{number}"), &(base + number).to_string(), "350", "/var/empty"))
        .collect()
}

fn groups() -> String {
    let members: String = (1..=32).map(|number| format!("<string>_nixbld{number}</string>")).collect();
    let nixbld = format!(
        "<dict><key>dsAttrTypeStandard:GroupMembership</key><array>{members}</array>\
         <key>dsAttrTypeStandard:PrimaryGroupID</key><array><string>350</string></array>\
         <key>dsAttrTypeStandard:RecordName</key><array><string>nixbld</string></array></dict>"
    );
    let wheel = record(&[("PrimaryGroupID", "0"), ("RecordName", "wheel")]);
    plist(&format!("<array>{nixbld}{wheel}</array>"))
}

/// The keys of `diskutil info -plist` that tell of a volume, and some that do not.
fn volume(mount_point: &str, name: &str, owners: bool, encrypted: bool) -> String {
    plist(&format!(
        "<dict><key>APFSContainerReference</key><string>disk3</string><key>DeviceIdentifier</key><string>disk3s7</string>\
         <key>DeviceNode</key><string>/dev/disk3s7</string><key>Encryption</key><{encrypted}/>\
         <key>FileVault</key><{encrypted}/><key>FilesystemType</key><string>apfs</string>\
         <key>GlobalPermissionsEnabled</key><{owners}/><key>Locked</key><false/>\
         <key>MountPoint</key><string>{mount_point}</string><key>ParentWholeDisk</key><string>disk3</string>\
         <key>VolumeName</key><string>{name}</string><key>VolumeUUID</key><string>{UUID}</string>\
         <key>WritableVolume</key><true/></dict>"
    ))
}

const ITEM: &str = "keychain: \"/Library/Keychains/System.keychain\"\nversion: 256\nclass: \"genp\"\nattributes:\n    \
    0x00000007 <blob>=\"Nix Store encryption password\"\n    0x00000008 <blob>=<NULL>\n    \"acct\"<blob>=\"Nix Store\"\n    \
    \"cdat\"<timedate>=0x32303234303131355A00  \"20240115Z\\000\"\n    \"desc\"<blob>=\"Encrypted volume password\"\n    \
    \"svce\"<blob>=\"5BFF8A2F-1F4C-4A6E-9B6C-1D2E3F405162\"\n    \"type\"<uint32>=<NULL>\n";

fn printed(label: &str, pid: Option<i32>) -> String {
    let process = pid.map_or(String::new(), |pid| format!("\tpid = {pid}\n"));
    let state = if pid.is_some() { "running" } else { "not running" };
    format!(
        "system/{label} = {{\n\tactive count = 1\n\tpath = /Library/LaunchDaemons/{label}.plist\n\ttype = LaunchDaemon\n\
         \tstate = {state}\n\n\tprogram = /bin/sh\n\targuments = {{\n\t\t/bin/sh\n\t\t-c\n\t}}\n\n{process}\
         \tevent channels = {{\n\t\t\"x\" = {{\n\t\t\tpid = 99\n\t\t}}\n\t}}\n}}\n"
    )
}

fn job(label: &str, more: &str) -> String {
    plist(&format!("<dict><key>Label</key><string>{label}</string><key>RunAtLoad</key><true/>{more}</dict>"))
}

const WAITS: &str = "<key>ProgramArguments</key><array><string>/bin/sh</string><string>-c</string>\
    <string>/bin/wait4path /nix/var/nix/profiles/default/bin/nix-daemon &amp;&amp; \
    exec /nix/var/nix/profiles/default/bin/nix-daemon</string></array>";

/// A Mac without Nix.
fn clean() -> Tree {
    Tree::new()
        .file(
            "/System/Library/CoreServices/SystemVersion.plist",
            &plist(
                "<dict><key>ProductBuildVersion</key><string>24B83</string><key>ProductName</key><string>macOS</string>\
                 <key>ProductVersion</key><string>15.1</string></dict>",
            ),
        )
        .output(DSCL_USERS, users(""))
        .output(DSCL_GROUPS, plist("<array></array>"))
        .output("launchctl print-disabled system", "disabled services = {\n\t\"com.example\" => disabled\n}\n")
        .output("diskutil info -plist /", volume("/", "Macintosh HD", true, true))
        .output(
            "diskutil info -plist Nix Store",
            plist("<dict><key>Error</key><true/><key>ErrorMessage</key><string>Could not find disk: Nix Store</string></dict>"),
        )
}

/// What every multi-user installer leaves.
fn installed() -> Tree {
    clean()
        .store()
        .file("/nix/store/#-nix-2.34.8/bin/nix", "")
        .link("/nix/store/#-nix-2.34.8/bin/nix-daemon", "nix")
        .link("/nix/var/nix/profiles/default", "/nix/store/#-nix-2.34.8")
        .file("/etc/nix/nix.conf", "\nbuild-users-group = nixbld\n")
        .file("/etc/synthetic.conf", "# comment\nnix\n")
        .file("/etc/fstab", &format!("UUID={UUID} /nix apfs rw,noauto,nobrowse,nosuid,noatime,owners\n"))
        .file("/etc/zshrc", "# Nix\nif true; then\n  . /nix/var/nix/profiles/default/etc/profile.d/nix-daemon.sh\nfi\n# End Nix\n")
        .file("/etc/zshrc.backup-before-nix", "")
        .output(DSCL_USERS, users(&build_users(1..=32, 350)))
        .output(DSCL_GROUPS, groups())
        .output("diskutil info -plist /nix", volume("/nix", "Nix Store", true, true))
        .output(SECURITY, ITEM)
}

/// The official script's.
fn official() -> Tree {
    installed()
        .file("/Library/LaunchDaemons/org.nixos.nix-daemon.plist", &job("org.nixos.nix-daemon", WAITS))
        .file(
            "/Library/LaunchDaemons/org.nixos.darwin-store.plist",
            &job(
                "org.nixos.darwin-store",
                "<key>ProgramArguments</key><array><string>/bin/sh</string><string>-c</string>\
                 <string>/usr/bin/security find-generic-password -s x -w | /usr/sbin/diskutil apfs unlockVolume x -mountpoint /nix \
                 -stdinpassphrase</string></array>",
            ),
        )
        .file("/Library/LaunchDaemons/com.example.other.plist", &job("com.example.other", ""))
        .output("launchctl print system/org.nixos.nix-daemon", printed("org.nixos.nix-daemon", Some(412)))
        .output("launchctl print system/org.nixos.darwin-store", printed("org.nixos.darwin-store", None))
}

fn mac(facts: &Facts) -> &Mac {
    facts.mac.as_ref().unwrap()
}

fn keys(facts: &Facts) -> Vec<String> {
    let found = collect(facts, &findings::Options::default());
    found.into_iter().map(|finding| finding.key).filter(|key| key.starts_with("macos-")).collect()
}

#[test]
fn a_mac_is_read_from_its_own_tools() {
    let facts = official().gather();
    assert_eq!((facts.os.family.as_str(), facts.os.name.as_str()), ("macos", "macOS 15.1 (24B83)"));
    assert_eq!(facts.flavour, Flavour::OfficialMultiUser);
    let nobody = facts.users.iter().find(|user| user.name == "nobody").unwrap();
    assert_eq!((nobody.uid, nobody.gid), (4_294_967_294, 4_294_967_294));
    assert_eq!((facts.build_users.gid, facts.build_users.members.len()), (Some(350), 32));
    assert_eq!(facts.nix[0].version.as_ref().unwrap().to_string(), "2.34.8");
    assert!(facts.nix[0].runs_daemon);

    let mac = mac(&facts);
    let volume = mac.volume.as_ref().unwrap();
    assert_eq!(
        (volume.name.as_str(), volume.uuid.as_str(), volume.device.as_str()),
        ("Nix Store", UUID, "disk3s7")
    );
    assert!(volume.owners_enabled && volume.writable);
    assert_eq!((volume.encrypted, volume.system_encrypted), (Some(true), Some(true)));
    let item = volume.keychain_item.as_ref().unwrap();
    assert_eq!((item.account.as_str(), item.service.as_str()), ("Nix Store", UUID));
    assert_eq!(item.label.as_deref(), Some("Nix Store encryption password"));
    assert_eq!(mac.fstab.as_ref().unwrap().uuid().as_deref(), Some(UUID));
    assert_eq!(mac.synthetic.as_ref().unwrap().target, None);

    assert_eq!(mac.jobs.len(), 2, "only those that have to do with Nix");
    let daemon = mac.daemon().unwrap();
    assert_eq!(
        daemon.program.as_deref().unwrap().to_str(),
        Some("/nix/var/nix/profiles/default/bin/nix-daemon")
    );
    assert_eq!(
        (daemon.loaded, daemon.pid, daemon.user.as_deref()),
        (true, Some(412), None),
        "not the pid of a part"
    );
    assert!(daemon.is_root_from_nix() && !daemon.is_ours());
    let mounter = mac.mounter().unwrap();
    assert_eq!((mounter.loaded, mounter.pid), (true, None));
    assert!(!mounter.is_root_from_nix());
    assert_eq!(keys(&facts), ["macos-untried", "macos-root-runs-nix"]);
}

#[test]
fn installers_are_told_apart() {
    let receipt = |settings: &str| {
        format!(r#"{{"version":"3.1.0","actions":[],"planner":{{"planner":"macos","settings":{settings}}}}}"#)
    };
    let rows: Vec<(&str, Tree, Flavour)> = vec![
        ("clean", clean(), Flavour::None),
        ("official", official(), Flavour::OfficialMultiUser),
        (
            "NixOS's installer",
            official()
                .file("/nix/receipt.json", &receipt(r#"{"add_channel":false}"#))
                .file("/etc/nix/nix.conf", "# Generated by https://github.com/NixOS/nix-installer\n"),
            Flavour::NixInstaller,
        ),
        (
            "Determinate's installer",
            official().file("/nix/receipt.json", &receipt(r#"{"determinate_nix":false}"#)),
            Flavour::DeterminateUpstream,
        ),
        (
            "Determinate Nix",
            installed().file(
                "/Library/LaunchDaemons/systems.determinate.nix-daemon.plist",
                &job(
                    "systems.determinate.nix-daemon",
                    "<key>Program</key><string>/usr/local/bin/determinate-nixd</string>",
                ),
            ),
            Flavour::DeterminateNix,
        ),
        ("Lix", official().file("/nix/lix-installer", ""), Flavour::Lix),
        (
            "nix-darwin",
            official().file(
                "/Library/LaunchDaemons/org.nixos.activate-system.plist",
                &job("org.nixos.activate-system", ""),
            ),
            Flavour::NixDarwin,
        ),
        (
            "single-user",
            clean().store().owner("/nix/store", 501).owner("/nix/var/nix/db/db.sqlite", 501),
            Flavour::OfficialSingleUser { owner: 501 },
        ),
        (
            "a daemon of another user",
            installed().file(
                "/Library/LaunchDaemons/org.nixos.nix-daemon.plist",
                &job("org.nixos.nix-daemon", &format!("{WAITS}<key>UserName</key><string>_nixd</string>")),
            ),
            Flavour::UnprivilegedForeign,
        ),
    ];
    for (name, tree, flavour) in rows {
        assert_eq!(tree.gather().flavour, flavour, "{name}");
    }
}

#[test]
fn what_a_mac_lacks_is_told() {
    let plain = ["macos-untried", "macos-root-runs-nix"];
    let rows: Vec<(&str, Tree, Vec<&str>)> = vec![
        (
            "owners ignored",
            official().output("diskutil info -plist /nix", volume("/nix", "Nix Store", false, true)),
            vec!["macos-owners-ignored", "macos-untried", "macos-root-runs-nix"],
        ),
        (
            "not encrypted",
            official().output("diskutil info -plist /nix", volume("/nix", "Nix Store", true, false)),
            vec!["macos-untried", "macos-volume-not-encrypted", "macos-root-runs-nix"],
        ),
        (
            "no volume",
            official().output("diskutil info -plist /nix", volume("/System/Volumes/Data", "Data", true, true)),
            vec!["macos-untried", "macos-volume-missing", "macos-root-runs-nix"],
        ),
        (
            "no password",
            official().output(SECURITY, "").output(SECURITY_BY_NAME, ""),
            vec!["macos-untried", "macos-password-missing", "macos-root-runs-nix"],
        ),
        (
            "the password of another volume",
            official().output(SECURITY, "").output(SECURITY_BY_NAME, ITEM),
            vec!["macos-untried", "macos-password-missing", "macos-root-runs-nix"],
        ),
        (
            "no mount point",
            official().file("/etc/synthetic.conf", "run\tprivate/var/run\n"),
            vec!["macos-untried", "macos-mount-point-missing", "macos-root-runs-nix"],
        ),
        (
            "a link for a mount point",
            official().file("/etc/synthetic.conf", "nix\tUsers/alice/nix\n"),
            vec!["macos-untried", "macos-mount-point-missing", "macos-root-runs-nix"],
        ),
        (
            "another volume in fstab",
            official().file("/etc/fstab", "UUID=00000000-1F4C-4A6E-9B6C-1D2E3F405162 /nix apfs rw,noauto\n"),
            vec!["macos-untried", "macos-fstab-differs", "macos-root-runs-nix"],
        ),
        (
            "lower case, and a comment, as Determinate's installer writes it",
            official().file(
                "/etc/fstab",
                "UUID=5bff8a2f-1f4c-4a6e-9b6c-1d2e3f405162 /nix apfs rw,noatime,noauto,nobrowse,nosuid,owners # Added by x\n",
            ),
            plain.to_vec(),
        ),
        (
            "uids taken",
            official().output(
                DSCL_USERS,
                users(&(build_users(5..=32, 300) + &user("_aonsensed", "302", "302", "/var/empty"))),
            ),
            vec!["macos-untried", "macos-uids-taken", "macos-root-runs-nix"],
        ),
        (
            "shell files reset",
            official().file("/etc/zshrc", "# System-wide profile\n"),
            vec!["macos-untried", "macos-shell-files-reset", "macos-root-runs-nix"],
        ),
        (
            "disabled",
            official().output("launchctl print-disabled system", "disabled services = {\n\t\"org.nixos.nix-daemon\" => true\n}\n"),
            vec!["macos-untried", "macos-daemon-not-loaded", "macos-root-runs-nix"],
        ),
        (
            "not loaded",
            official().output("launchctl print system/org.nixos.nix-daemon", ""),
            vec!["macos-untried", "macos-daemon-not-loaded", "macos-root-runs-nix"],
        ),
        (
            "somebody's property list",
            official().owner("/Library/LaunchDaemons/org.nixos.nix-daemon.plist", 501),
            vec!["macos-untried", "macos-jobs-of-others", "macos-root-runs-nix"],
        ),
        (
            "an installer's hook",
            official()
                .file(
                    &format!("/Library/LaunchDaemons/{HOOK}.plist"),
                    &job(HOOK, "<key>ProgramArguments</key><array><string>/bin/sh</string><string>-c</string>\
                                <string>/bin/wait4path /nix/nix-installer &amp;&amp; /nix/nix-installer repair</string></array>"),
                )
                .output("launchctl print system/systems.determinate.nix-installer.nix-hook", ""),
            vec!["macos-untried", "macos-installer-hook", "macos-root-runs-nix"],
        ),
    ];
    assert_eq!(keys(&official().gather()), plain);
    for (name, tree, expected) in rows {
        assert_eq!(keys(&tree.gather()), expected, "{name}");
    }
}

#[test]
fn a_clean_mac_has_nothing_to_say_but_that() {
    let facts = clean().gather();
    assert_eq!(keys(&facts), ["macos-untried"]);
    assert_eq!((mac(&facts).volume.as_ref(), mac(&facts).jobs.len()), (None, 0));
}

#[test]
fn what_is_no_property_list_is_told_and_passed_over() {
    let facts =
        official().file("/Library/LaunchDaemons/org.nixos.nix-daemon.plist", "bplist00 not really").gather();
    assert!(mac(&facts).daemon().is_none());
    assert!(
        facts.unread.iter().any(|unread| unread.what.ends_with("org.nixos.nix-daemon.plist")),
        "{:?}",
        facts.unread
    );
}

/// No word of Linux's tools is told to who has a Mac, and no promise that only Linux keeps.
#[test]
fn remedies_are_those_of_a_mac() {
    let conf = "build-users-group = nixbld\nsandbox = false\n";
    let mut facts = official().file("/etc/nix/nix.conf", conf).gather();
    facts.nix[0].version = crate::types::NixVersion::parse("2.18.1");
    facts.users.iter_mut().find(|user| user.uid == 0).unwrap().shell = "/nix/x/bin/zsh".into();
    let found = serde_json::to_string(&collect(&facts, &findings::Options::default())).unwrap();
    for word in ["systemctl", "usermod", "--nix-archive", "--option sandbox", "build-users-stay"] {
        assert!(!found.contains(word), "{word}: {found}");
    }
    for word in ["nix-too-old", "kickstart", "dscl", "the broker's own sandbox"] {
        assert!(found.contains(word), "{word}: {found}");
    }
}
