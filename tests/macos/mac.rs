//! A simulated Mac: this machine's files below an overlay, a Mac's above them, and stand-ins in place of Apple's tools.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Tools that there are stand-ins for, and others that a Mac has and nothing may call yet.
const TOOLS: [&str; 11] = [
    "dscl",
    "diskutil",
    "launchctl",
    "security",
    "lsof",
    "dseditgroup",
    "sysadminctl",
    "tmutil",
    "plutil",
    "sw_vers",
    "restart-simulated-mac",
];
/// Tools of Linux that no Mac has: a call of one is one of a tool that no stand-in knows.
const OF_LINUX: [&str; 12] = [
    "setpriv",
    "useradd",
    "usermod",
    "userdel",
    "groupadd",
    "groupdel",
    "systemctl",
    "loginctl",
    "dpkg",
    "dpkg-query",
    "apparmor_parser",
    "getent",
];
/// What stands under each tool's name. It has no more than a line: Python keeps what it compiled of modules, but not of programs.
const LAUNCHER: &str = "#!/usr/bin/python3 -ES\nimport stand_in, sys; sys.exit(stand_in.main())\n";
/// Tools that both have, and that take other options on a Mac.
const STRICTER: [&str; 2] = ["rm", "cp"];
/// Where Linux's own of these lie on the simulated Mac.
const REAL: &str = "usr/lib/of-linux";
/// The program, in a directory that only its owner can enter, as `mktemp -d` makes one and `~/Downloads` is one.
const PROGRAM: &str = "private/program/nix-unroot";
/// Lines for each file (with its time stamp) and directory (without) that the Mac has of its own, which lie in the overlay's upper
/// half, but for this tool's journal.
const TREE: &str = "cd ../upper && find Library etc nix private Users var usr/local \
    \\( -path var/lib/nix-unroot -o -path private/program -o -path 'private/simulated-mac.json*' -o -path private/instants -o -path private/volumes -empty \
    -o -path private/calls -o -path private/archive -o -path private/helpers \\) -prune -o -path 'var/log/nix-unroot/*' -printf '%p %u:%g %m\\n' -o -type d -printf '%p %u:%g %m\\n' -o -type f -printf '%p %u:%g %m %s %T@\\n' -o -printf '%p %u:%g %m %y %l\\n' | sort";
/// Lists files with a NUL after each.
const FILES: &str = "cd ../upper && find Library etc nix Users -type f -print0 | sort -z";
/// Where the stand-ins keep what they know.
const STATE: &str = "private/simulated-mac.json";
/// Where they write calls that they do not know.
const UNKNOWN: &str = "private/unknown-calls";

/// UUID of the volume for Nix.
pub const UUID: &str = "5BFF8A2F-1F4C-4A6E-9B6C-1D2E3F405162";
/// The system's keychain.
pub const KEYCHAIN: &str = "/Library/Keychains/System.keychain";
/// Status of a process that was killed, as a shell has it.
const KILLED: i32 = 137;
/// Where a run writes the instants that it reaches.
const LOG: &str = "/private/instants";

/// A simulated Mac. It lies in memory, in namespaces of its own that end with it: it neither sees this machine's processes nor ends them.
/// Its first process takes what loses its parent, as launchd does.
pub struct Mac {
    keeper: Child,
    /// Its first process.
    first: u32,
    _dir: TempDir,
}

impl Drop for Mac {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// What a property list looks like in XML.
pub fn plist(body: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\"><dict>{body}</dict></plist>\n"
    )
}

fn volume(name: &str, device: &str, uuid: &str, mount_point: &str) -> Value {
    json!({
        "DeviceIdentifier": device, "VolumeName": name, "MountPoint": mount_point, "FilesystemType": "apfs", "VolumeUUID": uuid,
        "GlobalPermissionsEnabled": true, "FileVault": true, "WritableVolume": true, "ParentWholeDisk": "disk3",
        "APFSContainerReference": "disk3", "Internal": true,
    })
}

/// Adds the accounts that the official script makes.
pub fn add_build_users(state: &mut Value, builders: u32) -> Result<()> {
    let members: Vec<_> = (1..=builders).map(|number| format!("_nixbld{number}")).collect();
    for (number, name) in (1..).zip(&members) {
        state["directory"]["/Users"][name] = json!({
            "UniqueID": [(350 + number).to_string()], "PrimaryGroupID": ["350"], "NFSHomeDirectory": ["/var/empty"],
            "UserShell": ["/usr/bin/false"], "IsHidden": ["1"], "RealName": [format!("Nix build user {number}")],
            "GeneratedUID": [format!("00000000-0000-0000-0000-{number:012}")],
        });
    }
    state["directory"]["/Groups"]["nixbld"] = json!({
        "PrimaryGroupID": ["350"], "GroupMembership": members, "RealName": ["Nix build group for nix-daemon"],
        "GeneratedUID": ["00000000-0000-0000-0000-000000000350"],
    });
    Ok(())
}

impl Mac {
    /// Without Nix.
    pub fn clean() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let script = format!(
            "mount -t tmpfs none {0} && cd {0} && mkdir upper work root && \
             mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root && \
             mount --rbind /proc root/proc && mount --rbind /dev root/dev && mkdir -p root/private/program && \
             touch root/{2} && mount --bind {1} root/{2} && chown 501:20 root/private/program && chmod 0700 root/private/program && echo ready && \
             exec python3 -c 'import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); sys.stdin.read()'",
            dir.path().display(),
            env!("CARGO_BIN_EXE_nix-unroot"),
            PROGRAM,
        );
        let mut keeper = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &script])
            // It ends when this process does, however that ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().context("a pipe")?).read_line(&mut line)?;
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", keeper.id()))?;
        let mac = Self { keeper, first: children.trim().parse().unwrap_or_default(), _dir: dir };
        ensure!(line == "ready\n" && mac.first != 0, "the simulated Mac does not start");

        for tool in TOOLS.iter().chain(&OF_LINUX) {
            mac.file(&format!("usr/bin/{tool}"), LAUNCHER)?;
        }
        mac.shell(&format!("mkdir {REAL}; cp -p usr/bin/rm usr/bin/cp {REAL}"))?;
        for tool in STRICTER {
            mac.file(&format!("usr/bin/{tool}"), include_str!("stand_in_options.sh"))?;
        }
        let all = TOOLS.iter().chain(&OF_LINUX).chain(&STRICTER);
        mac.shell(&format!("cd usr/bin && chmod 0755 {}", all.copied().collect::<Vec<_>>().join(" ")))?;
        mac.file("usr/bin/stand_in.py", include_str!("stand_in.py"))?;
        mac.file("usr/bin/stand_in_volumes.py", include_str!("stand_in_volumes.py"))?;
        mac.shell(&format!(
            "mkdir -p usr/sbin .{0} && ln -sf /usr/bin/diskutil usr/sbin/ && ln -s /usr/bin/diskutil .{0}/apfs.util",
            "/System/Library/Filesystems/apfs.fs/Contents/Resources"
        ))?;
        mac.shell("rm -rf etc/nix nix etc/fstab etc/zsh var/lib/dpkg usr/local/sbin usr/local/libexec; chmod 755 usr/local var/log; mkdir -p Library/LaunchDaemons private/volumes var/empty var/db Users/alice var/root")?;
        mac.file("etc/fstab", "# as Apple delivers it\n")?;
        mac.file(
            "System/Library/CoreServices/SystemVersion.plist",
            &plist(
                "<key>ProductBuildVersion</key><string>24B83</string><key>ProductName</key><string>macOS</string>\
                 <key>ProductVersion</key><string>15.1</string>",
            ),
        )?;
        let user = |uid: &str, gid: &str, home: &str| json!({"UniqueID": [uid], "PrimaryGroupID": [gid], "NFSHomeDirectory": [home], "UserShell": ["/bin/zsh"]});
        mac.set_state(&json!({
            "directory": {
                "/Users": {
                    "root": user("0", "0", "/var/root"), "nobody": user("-2", "-2", "/var/empty"), "alice": user("501", "20", "/Users/alice"),
                },
                "/Groups": {"wheel": {"PrimaryGroupID": ["0"], "GroupMembership": ["root"]}, "staff": {"PrimaryGroupID": ["20"]}},
            },
            "volumes": [volume("Macintosh HD", "disk3s1s1", "00000000-1111-2222-3333-444444444444", "/")],
            "jobs": {}, "disabled": {"com.apple.ftpd": true}, "next_pid": 500, "open_files": [], "busy": false, "excluded": [],
            "keychains": {KEYCHAIN: [{"account": "alice", "service": "mail", "label": "mail"}]},
        }))?;
        Ok(mac)
    }

    /// Puts the helpers there, for `--helpers /private/helpers`: the gate as it was built, and in place of the others, which nothing here starts, any program.
    pub fn helpers(&self) -> Result<()> {
        let built = PathBuf::from(env!("CARGO_BIN_EXE_nix-unroot")).with_file_name("nix-daemon-gate");
        fs::create_dir_all(self.place("private/helpers"))?;
        fs::copy(&built, self.place("private/helpers/nix-daemon-gate"))
            .with_context(|| format!("{} is not there: cargo build --workspace makes it", built.display()))?;
        for name in ["nix-root-scan", "nix-build-broker"] {
            self.file(&format!("private/helpers/{name}"), "#!/bin/sh\n")?;
        }
        self.shell("chmod 0755 private/helpers/*")?;
        Ok(())
    }

    /// Puts an archive of Nix there, as `/private/archive/nix.tar`, and the helpers; the words that install it. The archive has the official one's
    /// form, and stand-ins in place of Nix's programs.
    pub fn archive(&self) -> Result<String> {
        self.helpers()?;
        let (package, top) =
            (format!("{}-nix-2.34.8", "0".repeat(32)), "private/archive/nix-2.34.8-x86_64-darwin");
        for (name, text) in [
            ("nix", include_str!("nix_daemon.py")),
            ("nix-store", include_str!("nix_store.py")),
            ("nix-env", include_str!("nix_store.py")),
        ] {
            self.file(&format!("{top}/store/{package}/bin/{name}"), text)?;
        }
        self.file(
            &format!("{top}/.reginfo"),
            &format!("/nix/store/{package}\nsha256:{}\n4096\n\n0\n", "0".repeat(64)),
        )?;
        self.file(&format!("{top}/install"), &format!("nix=\"/nix/store/{package}\"\n"))?;
        let digest = self.shell(&format!(
            "chmod 0755 {top}/store/{package}/bin/*; ln -s nix {top}/store/{package}/bin/nix-daemon; \
             tar --owner=0 --group=0 -C private/archive -cf private/archive/nix.tar nix-2.34.8-x86_64-darwin; \
             sha256sum <private/archive/nix.tar | cut -d ' ' -f 1"
        ))?;
        Ok(format!(
            "install --yes --untried-on-macs --helpers /private/helpers --nix-archive /private/archive/nix.tar --nix-archive-sha256 {}",
            digest.trim()
        ))
    }

    /// With a Nix of the official script, and `builders` build users: a volume, jobs, shells' files, and a store of root's.
    pub fn official(builders: u32) -> Result<Self> {
        let mac = Self::clean()?;
        mac.change_state(|state| {
            add_build_users(state, builders)?;
            let volumes = state["volumes"].as_array_mut().context("an array")?;
            volumes.push(volume("Nix Store", "disk3s7", UUID, "/nix"));
            let items = state["keychains"][KEYCHAIN].as_array_mut().context("an array")?;
            items.push(
                json!({"account": "Nix Store", "service": UUID, "label": "Nix Store encryption password"}),
            );
            Ok(())
        })?;
        let daemon = "/nix/var/nix/profiles/default/bin/nix-daemon";
        mac.job("org.nixos.nix-daemon", &format!("/bin/wait4path {daemon} &amp;&amp; exec {daemon}"))?;
        mac.job("org.nixos.darwin-store", &format!("/usr/sbin/diskutil mount -mountPoint /nix {UUID}"))?;
        mac.change_state(|state| {
            state["jobs"]["org.nixos.darwin-store"]["pid"] = Value::Null;
            Ok(())
        })?;
        mac.job("com.example.backup", "/usr/local/bin/backup /nix/var")?;
        mac.file("etc/synthetic.conf", "nix\n")?;
        mac.file(
            "etc/fstab",
            &format!(
                "# as Apple delivers it\nUUID={UUID} /nix apfs rw,noauto,nobrowse,nosuid,noatime,owners\n"
            ),
        )?;
        let block = "\n# Nix\nif [ -e '/nix/x' ]; then\n  . '/nix/x'\nfi\n# End Nix\n\n";
        mac.file("etc/zshrc", &format!("{block}# of Apple\n"))?;
        mac.file("etc/zshrc.backup-before-nix", "# of Apple\n")?;
        mac.file("etc/nix/nix.conf", "\nbuild-users-group = nixbld\n")?;
        let nix = format!("nix/store/{}-nix-2.34.8", "0".repeat(32));
        mac.file(&format!("{nix}/bin/nix"), include_str!("nix_daemon.py"))?;
        mac.file("nix/var/nix/db/schema", "10")?;
        // Root's channel: the script's nix-channel makes both.
        mac.file("var/root/.nix-channels", "https://channels.nixos.org/nixpkgs-unstable nixpkgs\n")?;
        mac.shell(
            "mkdir var/root/.nix-defexpr; ln -s /nix/var/nix/profiles/per-user/root/channels var/root/.nix-defexpr/channels_root",
        )?;
        mac.shell(&format!(
            "chmod 0755 {nix}/bin/nix; ln -s nix {nix}/bin/nix-daemon; mkdir nix/var/nix/profiles; ln -s /{nix} nix/var/nix/profiles/default; \
             mkdir -p nix/var/nix/gcroots nix/var/nix/temproots nix/var/log/nix; chown 0:350 nix/store; chmod 1775 nix/store; \
             python3 -c 'import sqlite3; base = sqlite3.connect(\"nix/var/nix/db/db.sqlite\"); base.execute(\"create table ValidPaths (id)\"); base.commit()'; \
             chown -h 351:350 nix/var/nix/temproots; mkdir -p nix/var/nix/profiles/per-user/alice; chown 501:20 nix/var/nix/profiles/per-user/alice"
        ))?;
        mac.helpers()?;
        Ok(mac)
    }

    /// A property list of launchd's, and the job that it is.
    pub fn job(&self, label: &str, script: &str) -> Result<()> {
        let path = format!("Library/LaunchDaemons/{label}.plist");
        self.file(
            &path,
            &plist(&format!(
                "<key>Label</key><string>{label}</string><key>RunAtLoad</key><true/><key>ProgramArguments</key>\
                 <array><string>/bin/sh</string><string>-c</string><string>{script}</string></array>"
            )),
        )?;
        self.change_state(|state| {
            state["jobs"][label] = json!({"path": format!("/{path}"), "pid": 412});
            Ok(())
        })
    }

    /// Where a path of the Mac lies on this machine, for processes that may look into its namespace.
    fn place(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/cwd/root/{path}", self.first))
    }

    /// Writes a file.
    pub fn file(&self, path: &str, text: &str) -> Result<()> {
        let place = self.place(path);
        fs::create_dir_all(place.parent().context("a path has a parent")?)?;
        fs::write(&place, text).with_context(|| format!("cannot write {path}"))
    }

    /// Whether something is there.
    pub fn has(&self, path: &str) -> bool {
        self.place(path).symlink_metadata().is_ok()
    }

    /// A file's text.
    pub fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.place(path)).with_context(|| format!("cannot read {path}"))
    }

    /// What the stand-ins know.
    pub fn state(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.read(STATE)?)?)
    }

    fn set_state(&self, state: &Value) -> Result<()> {
        self.file(STATE, &state.to_string())
    }

    /// Changes what the stand-ins know.
    pub fn change_state(&self, change: impl FnOnce(&mut Value) -> Result<()>) -> Result<()> {
        let mut state = self.state()?;
        change(&mut state)?;
        self.set_state(&state)
    }

    /// Runs a shell of this machine in the Mac's root directory; its output.
    pub fn shell(&self, script: &str) -> Result<String> {
        let output = self.inside().args(["sh", "-c", &format!("cd root && {script}")]).output()?;
        ensure!(output.status.success(), "`{script}`: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        // Ours; the program takes it for a setting of its own.
        command.env_remove("NIX_UNROOT_LONG");
        command
            .arg(format!("--mount=/proc/{}/ns/mnt", self.first))
            .arg(format!("--pid=/proc/{}/ns/pid", self.first));
        command.arg(format!("--wd=/proc/{}/cwd", self.first)).stdin(Stdio::null());
        command
    }

    /// Runs `nix-unroot WORDS` on the Mac, with these variables. A call of a tool that no stand-in knows is a failure.
    pub fn run_with(&self, variables: &[(&str, &str)], words: &str) -> Result<Output> {
        let mut command = self.inside();
        command.args(["sh", "-c", &format!("exec chroot root /{PROGRAM} {words}")]);
        let output = command.envs(variables.iter().copied()).output()?;
        let unknown = self.read(UNKNOWN).unwrap_or_default();
        ensure!(unknown.is_empty(), "`nix-unroot {words}` called what no stand-in knows:\n{unknown}");
        Ok(output)
    }

    /// The same without variables.
    pub fn run(&self, words: &str) -> Result<Output> {
        self.run_with(&[], words)
    }

    /// Runs `nix-unroot WORDS` and kills it at this instant; whether it came there. Tools that it had called may work on: it waits for
    /// them, as the next run would ask for.
    pub fn killed_at(&self, instant: &str, words: &str) -> Result<bool> {
        let output = self.run_with(&[("NIX_UNROOT_CHECKPOINT", instant)], words)?;
        let code = output.status.code();
        ensure!(matches!(code, None | Some(KILLED) | Some(0)), "{instant}: {output:?}");
        self.shell("test ! -e var/lib/nix-unroot/lock || flock --wait 20 var/lib/nix-unroot/lock true")?;
        Ok(code != Some(0))
    }

    /// The instants that `nix-unroot WORDS` reaches, in their order.
    pub fn instants(&self, words: &str) -> Result<Vec<String>> {
        let output = self.run_with(&[("NIX_UNROOT_CHECKPOINT_LOG", LOG)], words)?;
        ensure!(output.status.success(), "`nix-unroot {words}`: {output:?}");
        let seen = self.read(&LOG[1..])?.lines().map(str::to_owned).collect();
        self.shell(&format!("rm .{LOG}"))?;
        Ok(seen)
    }

    /// Runs `nix-unroot WORDS`, which must end well; what it said.
    pub fn ok(&self, words: &str) -> Result<String> {
        let output = self.run(words)?;
        let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "`nix-unroot {words}`: {}\n{said}{told}", output.status);
        Ok(format!("{said}{told}"))
    }

    /// Restarts it: volumes are locked and mounted by their jobs, and what synthetic.conf(5) does not ask for any more is gone.
    pub fn restart(&self) -> Result<()> {
        self.shell("chroot . /usr/bin/restart-simulated-mac").map(|_| ())
    }

    /// Command lines of all tools that were called, as everybody on the machine could have seen them.
    pub fn calls(&self) -> Result<String> {
        self.read("private/calls")
    }

    /// The document of `nix-unroot inspect --json`, which must change nothing.
    pub fn inspect(&self) -> Result<Value> {
        let before = self.manifest()?;
        let output = self.run("inspect --json")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        before.assert_same(&self.manifest()?, "after inspect")?;
        serde_json::from_slice(&output.stdout).context("inspect --json wrote something else")
    }

    /// All that the Mac has of its own: files, and what the stand-ins know. Numbers of processes come and go.
    pub fn manifest(&self) -> Result<Manifest> {
        let mut state = self.state()?;
        state["next_pid"].take();
        for job in state["jobs"].as_object_mut().context("an object")?.values_mut() {
            job["pid"] = json!(!job["pid"].is_null());
        }
        // That launchd may start a job is no news: there is no command that takes back what was said of one.
        state["disabled"]
            .as_object_mut()
            .context("an object")?
            .retain(|_, disabled| *disabled == json!(true));
        state.sort_all_objects();
        let tree = self.shell(TREE)?;
        ensure!(tree.lines().count() > 8, "the manifest is empty:\n{tree}");
        let files = self.shell(&format!("{FILES} | xargs -0 sha256sum"))?;
        Ok(Manifest(format!("{tree}{files}{state:#}\n")))
    }

    /// The same without what differs between two runs that do the same: time stamps, and the identities and the password that are made up.
    /// The identity of Nix's volume must be the same wherever it is written.
    pub fn outcome(&self) -> Result<Manifest> {
        let Manifest(mut all) = self.manifest()?;
        let state = self.state()?;
        let made =
            state["volumes"].as_array().into_iter().flatten().find(|it| it["VolumeName"] == "Nix Store");
        let own = |key: &str| made.and_then(|volume| volume[key].as_str()).filter(|value| !value.is_empty());
        if let Some(uuid) = own("VolumeUUID") {
            // Digests of what has the identity in it differ.
            let mask = format!("echo \"$(sed s/{uuid}/ITS-UUID/gI \"$0\" | sha256sum) $0\"");
            let files = self.shell(&format!("{FILES} | xargs -0 -n 1 sh -c '{mask}'"))?;
            let is_digest = |line: &&str| line.split_once("  ").is_none_or(|(digest, _)| digest.len() != 64);
            all = all.lines().filter(is_digest).map(|line| format!("{line}\n")).collect();
            all = (all + &files).replace(uuid, "ITS-UUID");
        }
        if let Some(password) = own("Passphrase") {
            all = all.replace(password, "ITS-PASSWORD");
        }
        Ok(Manifest(all).of_any_run())
    }
}

/// The state of a Mac at an instant.
#[derive(Debug, PartialEq, Eq)]
pub struct Manifest(String);

impl Manifest {
    /// Without time stamps, and without the identities that new accounts get.
    fn of_any_run(&self) -> Self {
        let line = |line: &str| {
            let (start, last) = line.rsplit_once(' ').unwrap_or(("", line));
            let is_time = last.contains('.') && last.parse::<f64>().is_ok();
            let is_uuid = last.trim_matches('"').len() == UUID.len() && last.matches('-').count() == 4;
            if is_time || is_uuid { format!("{start}\n") } else { format!("{line}\n") }
        };
        Self(self.0.lines().map(line).collect())
    }

    /// Fails, and tells the lines that differ.
    pub fn assert_same(&self, other: &Self, when: &str) -> Result<()> {
        let only = |here: &Self, there: &Self, mark: &str| {
            let there: std::collections::HashSet<_> = there.0.lines().collect();
            here.0
                .lines()
                .filter(|line| !there.contains(line))
                .map(|line| format!("{mark} {line}\n"))
                .collect::<String>()
        };
        ensure!(
            self == other,
            "{when}, it is not the same:\n{}{}",
            only(self, other, "-"),
            only(other, self, "+")
        );
        Ok(())
    }
}
