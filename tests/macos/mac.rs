//! A simulated Mac: this machine's files below an overlay, a Mac's above them, and stand-ins in place of Apple's tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Tools that there are stand-ins for, and others that a Mac has and nothing may call yet.
const TOOLS: [&str; 9] = [
    "dscl",
    "diskutil",
    "launchctl",
    "security",
    "dseditgroup",
    "sysadminctl",
    "tmutil",
    "plutil",
    "sw_vers",
];
/// Directories that a Mac has of its own, whose contents a test may compare.
const WATCHED: [&str; 6] = ["Library", "etc", "nix", "private", "var/lib/nix-unroot", "usr/local"];

/// UUID of the volume for Nix.
pub const UUID: &str = "5BFF8A2F-1F4C-4A6E-9B6C-1D2E3F405162";

/// A simulated Mac that is not running: each command starts it, and ends it.
pub struct Mac {
    dir: TempDir,
    /// What the stand-ins answer.
    pub state: Value,
}

/// What a property list looks like in XML.
pub fn plist(body: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\"><dict>{body}</dict></plist>\n"
    )
}

impl Mac {
    /// Without Nix.
    pub fn clean() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let user = |uid: &str, gid: &str, home: &str| json!({"UniqueID": [uid], "PrimaryGroupID": [gid], "NFSHomeDirectory": [home], "UserShell": ["/bin/zsh"]});
        let volume = |name: &str, device: &str, mount_point: &str| {
            json!({
                "DeviceIdentifier": device, "VolumeName": name, "MountPoint": mount_point, "FilesystemType": "apfs",
                "VolumeUUID": "00000000-1111-2222-3333-444444444444", "GlobalPermissionsEnabled": true, "FileVault": true,
                "WritableVolume": true, "ParentWholeDisk": "disk3", "Internal": true,
            })
        };
        let state = json!({
            "directory": {
                "/Users": {
                    "root": user("0", "0", "/var/root"), "nobody": user("-2", "-2", "/var/empty"), "alice": user("501", "20", "/Users/alice"),
                },
                "/Groups": {"wheel": {"PrimaryGroupID": ["0"], "GroupMembership": ["root"]}, "staff": {"PrimaryGroupID": ["20"]}},
            },
            "volumes": {"/": volume("Macintosh HD", "disk3s1s1", "/")},
            "jobs": {}, "disabled": {"com.apple.ftpd": true}, "keychains": {},
        });
        let mac = Self { dir, state };
        for directory in ["root", "files/Library/LaunchDaemons", "files/private"] {
            fs::create_dir_all(mac.dir.path().join(directory))?;
        }
        for tool in TOOLS {
            let place = mac.file(&format!("usr/bin/{tool}"), include_str!("stand_in.py"))?;
            ensure!(Command::new("chmod").arg("0755").arg(place).status()?.success(), "chmod");
        }
        mac.file(
            "System/Library/CoreServices/SystemVersion.plist",
            &plist(
                "<key>ProductBuildVersion</key><string>24B83</string><key>ProductName</key><string>macOS</string>\
                 <key>ProductVersion</key><string>15.1</string>",
            ),
        )?;
        fs::copy(env!("CARGO_BIN_EXE_nix-unroot"), mac.file("private/nix-unroot", "")?)?;
        Ok(mac)
    }

    /// With a Nix of the official script: a volume, build users, jobs, shells' files, and a store of root's.
    pub fn official() -> Result<Self> {
        let mut mac = Self::clean()?;
        let mut volume = mac.state["volumes"]["/"].clone();
        for (key, value) in [
            ("DeviceIdentifier", "disk3s7"),
            ("VolumeName", "Nix Store"),
            ("MountPoint", "/nix"),
            ("VolumeUUID", UUID),
        ] {
            volume[key] = json!(value);
        }
        mac.state["volumes"]["/nix"] = volume;
        for number in 1..=32 {
            let uid = (350 + number).to_string();
            mac.state["directory"]["/Users"][format!("_nixbld{number}")] = json!({
                "UniqueID": [uid], "PrimaryGroupID": ["350"], "NFSHomeDirectory": ["/var/empty"], "UserShell": ["/usr/bin/false"],
                "IsHidden": ["1"],
            });
        }
        let members: Vec<_> = (1..=32).map(|number| format!("_nixbld{number}")).collect();
        mac.state["directory"]["/Groups"]["nixbld"] =
            json!({"PrimaryGroupID": ["350"], "GroupMembership": members});
        mac.state["keychains"]["/Library/Keychains/System.keychain"] =
            json!([{"account": "Nix Store", "service": UUID, "label": "Nix Store encryption password"}]);
        mac.job("org.nixos.nix-daemon", "/bin/wait4path /nix/var/nix/profiles/default/bin/nix-daemon &amp;&amp; exec /nix/var/nix/profiles/default/bin/nix-daemon", Some(412))?;
        mac.job("org.nixos.darwin-store", "/usr/sbin/diskutil mount -mountPoint /nix x", None)?;
        mac.file("etc/synthetic.conf", "nix\n")?;
        mac.file("etc/fstab", &format!("UUID={UUID} /nix apfs rw,noauto,nobrowse,nosuid,noatime,owners\n"))?;
        mac.file(
            "etc/zshrc",
            "# Nix\n. /nix/var/nix/profiles/default/etc/profile.d/nix-daemon.sh\n# End Nix\n",
        )?;
        mac.file("etc/zshrc.backup-before-nix", "")?;
        mac.file("etc/nix/nix.conf", "\nbuild-users-group = nixbld\n")?;
        let nix = format!("nix/store/{}-nix-2.34.8", "0".repeat(32));
        mac.file(&format!("{nix}/bin/nix"), "#!/bin/sh\n")?;
        mac.link(&format!("{nix}/bin/nix-daemon"), "nix")?;
        mac.link("nix/var/nix/profiles/default", &format!("/{nix}"))?;
        mac.file("nix/var/nix/db/schema", "10")?;
        let database = rusqlite::Connection::open(mac.file("nix/var/nix/db/db.sqlite", "")?)?;
        database.execute_batch("CREATE TABLE ValidPaths (id INTEGER); INSERT INTO ValidPaths VALUES (1)")?;
        Ok(mac)
    }

    /// A property list of launchd's, and the job that it is.
    pub fn job(&mut self, label: &str, script: &str, pid: Option<i32>) -> Result<()> {
        let path = format!("Library/LaunchDaemons/{label}.plist");
        self.file(
            &path,
            &plist(&format!(
                "<key>Label</key><string>{label}</string><key>RunAtLoad</key><true/><key>ProgramArguments</key>\
                 <array><string>/bin/sh</string><string>-c</string><string>{script}</string></array>"
            )),
        )?;
        self.state["jobs"][label] = json!({"path": format!("/{path}"), "pid": pid});
        Ok(())
    }

    /// Writes a file of the Mac; where it lies on this machine.
    pub fn file(&self, path: &str, text: &str) -> Result<PathBuf> {
        let place = self.dir.path().join("files").join(path);
        fs::create_dir_all(place.parent().context("a path has a parent")?)?;
        fs::write(&place, text)?;
        Ok(place)
    }

    fn link(&self, path: &str, target: &str) -> Result<()> {
        let place = self.dir.path().join("files").join(path);
        fs::create_dir_all(place.parent().context("a path has a parent")?)?;
        Ok(std::os::unix::fs::symlink(target, place)?)
    }

    /// Runs `nix-unroot WORDS` on the Mac. A call of a tool that no stand-in knows is a failure.
    pub fn run(&self, words: &str) -> Result<Output> {
        self.file("private/simulated-mac.json", &self.state.to_string())?;
        // A directory of an overlay's must be on a file system that keeps its marks; a tmpfs does everywhere.
        let script = format!(
            "mount -t tmpfs none {dir}/root && cd {dir}/root && mkdir upper work merged && cp -a {dir}/files/. upper && \
             mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work merged && \
             mount --rbind /proc merged/proc && mount --rbind /dev merged/dev && {manifest} >{dir}/before; \
             chroot merged /private/nix-unroot {words}; status=$?; {manifest} >{dir}/after; \
             cp merged/private/unknown-calls {dir}/ 2>/dev/null; exit $status",
            dir = self.dir.path().display(),
            manifest = format_args!(
                "(cd merged && find {} ! -path private/unknown-calls -exec stat -c '%n %u:%g %a %F %s %Y' {{}} + 2>/dev/null | sort)",
                WATCHED.join(" ")
            ),
        );
        let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output()?;
        let unknown = fs::read_to_string(self.dir.path().join("unknown-calls")).unwrap_or_default();
        ensure!(unknown.is_empty(), "`nix-unroot {words}` called what no stand-in knows:\n{unknown}");
        Ok(output)
    }

    /// Runs `nix-unroot inspect --json`; the document.
    pub fn inspect(&self) -> Result<Value> {
        let output = self.run("inspect --json")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self.is_untouched()?;
        serde_json::from_slice(&output.stdout).context("inspect --json wrote something else")
    }

    /// Whether the last command changed nothing.
    pub fn is_untouched(&self) -> Result<()> {
        let read = |name: &str| fs::read_to_string(Path::new(self.dir.path()).join(name));
        let (before, after) = (read("before")?, read("after")?);
        ensure!(before.lines().count() > 20, "the manifest is empty:\n{before}");
        ensure!(before == after, "it changed something:\n{before}\n---\n{after}");
        Ok(())
    }
}
