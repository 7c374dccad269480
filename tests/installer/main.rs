//! `install.sh` and `scripts/release`, end to end: a release is packed, served on loopback, and fetched by the script under each
//! shell. In place of `nix-unroot` there is a program that says how it was called; the machine tests run the real one.
//!
//! Needs root (mounts, another uid), and the shells and downloaders that `scripts/setup.sh` installs.

mod server;

use anyhow::{Context, Result, ensure};
use server::{Manner, Server};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The shells that the script has to run under: what `sh` is on Debian, elsewhere, and on small systems.
const SHELLS: [&str; 3] = ["dash", "bash --posix", "busybox sh"];

/// Says how it was called, and ends with a status of its own.
const STAND_IN: &str = r#"#!/bin/sh
case $1 in --version | completions | man) exit 0 ;; esac
[ -t 0 ] && input=terminal || input=other
beside=
for file in "${0%/*}"/nix-*; do beside="$beside ${file##*/}"; done
echo "called: $* | uid $(id -u) | input $input | config ${NIX_UNROOT_CONFIG-none} | proxy ${https_proxy-none} | with$beside"
exit 5
"#;

/// What the script cannot do without.
const TOOLS: &str = "id uname tr cut sed mktemp tar gzip env rm chmod sh cat getconf touch";

/// A packed release, and the server that has it.
struct Release {
    dir: TempDir,
    server: Server,
}

impl Release {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let programs = dir.path().join("programs");
        for directory in ["programs", "mac", "tmp", "bin"] {
            std::fs::create_dir(dir.path().join(directory))?;
        }
        for name in ["nix-unroot", "nix-root-scan", "nix-daemon-gate"] {
            write_program(&programs.join(name), STAND_IN)?;
        }
        let mac = dir.path().join("mac");
        for name in ["nix-unroot", "nix-root-scan", "nix-daemon-gate", "nix-build-broker"] {
            write_program(&mac.join(name), STAND_IN)?;
        }
        let packed = Command::new(repository().join("scripts/release"))
            .args([Path::new("--programs"), &programs, Path::new("--output"), &dir.path().join("dist")])
            .args(
                ["aarch64-darwin", "x86_64-darwin"]
                    .iter()
                    .flat_map(|system| ["--programs".to_owned(), format!("{system}={}", mac.display())]),
            )
            .output()?;
        ensure!(packed.status.success(), "scripts/release: {}", text(&packed.stderr));
        let server = Server::start(&dir.path().join("dist"))?;
        // Another uid uses it, too.
        run(&format!("chmod -R a+rX {0}; chmod 1777 {0}/tmp", dir.path().display()))?;
        Ok(Self { dir, server })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `curl ... | SHELL -s -- WORDS`, without a terminal.
    fn pipe(&self, shell: &str, words: &str) -> Command {
        self.command(&format!(
            "cat {} | setsid --wait {shell} -s -- {words}",
            self.path("dist/install.sh").display()
        ))
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .env("NIX_UNROOT_RELEASE_URL", &self.server.url)
            .env("TMPDIR", self.path("tmp"))
            .env("no_proxy", "127.0.0.1")
            .stdin(Stdio::null());
        command
    }

    /// A `PATH` with nothing but `tools`.
    fn only(&self, tools: &str) -> Result<PathBuf> {
        let bin = tempfile::Builder::new().tempdir_in(self.path("bin"))?.keep();
        for tool in tools.split_whitespace() {
            run(&format!("ln -sf $(command -v {tool}) {}/", bin.display()))?;
        }
        run(&format!("chmod 0755 {}", bin.display()))?;
        Ok(bin)
    }

    /// Fails when the script left something behind.
    fn nothing_left(&self) -> Result<()> {
        let left = std::fs::read_dir(self.path("tmp"))?.count();
        ensure!(left == 0, "{left} things are left in TMPDIR");
        Ok(())
    }
}

#[test]
fn a_release_is_fetched_checked_and_run() -> Result<()> {
    let release = Release::new()?;
    for shell in SHELLS {
        for downloader in ["curl", "wget", "busybox"] {
            let path = release.only(&format!(
                "{TOOLS} sha256sum setsid {} {downloader}",
                shell.split(' ').next().unwrap_or(shell)
            ))?;
            if downloader == "busybox" {
                std::os::unix::fs::symlink("busybox", path.join("wget"))?;
            }
            let output = release.pipe(shell, "install --yes 'two words'").env("PATH", &path).output()?;
            let said = text(&output.stdout);
            ensure!(
                said.starts_with("called: install --yes two words |"),
                "{shell}, {downloader}: {said}{}",
                text(&output.stderr)
            );
            ensure!(said.contains("input other"), "there is no terminal: {said}");
            ensure!(output.status.code() == Some(5), "the status of nix-unroot is lost: {}", output.status);
            release.nothing_left()?;
        }
    }
    Ok(())
}

#[test]
fn any_tool_for_digests_will_do() -> Result<()> {
    let release = Release::new()?;
    for tool in ["sha256sum", "shasum", "openssl"] {
        let path = release.only(&format!("{TOOLS} setsid dash curl {tool} perl"))?;
        let output = release.pipe("dash", "--help").env("PATH", path).output()?;
        ensure!(text(&output.stdout).starts_with("called: --help"), "{tool}: {}", text(&output.stderr));
    }
    Ok(())
}

#[test]
fn a_broken_download_is_never_run() -> Result<()> {
    let release = Release::new()?;
    for (manner, reason) in
        [(Manner::Half, "SHA-256|cannot download"), (Manner::Altered, "is not what was released")]
    {
        release.server.serve(manner);
        for (shell, downloader) in SHELLS.into_iter().zip(["curl", "wget", "curl"]) {
            let program = shell.split(' ').next().unwrap_or(shell);
            let path = release.only(&format!("{TOOLS} sha256sum setsid {program} {downloader}"))?;
            let output = release.pipe(shell, "install").env("PATH", path).output()?;
            let said = text(&output.stderr);
            ensure!(
                output.status.code() == Some(1) && output.stdout.is_empty(),
                "{manner:?}: {} {said}",
                output.status
            );
            ensure!(
                reason.split('|').any(|reason| said.contains(reason)),
                "{manner:?}, {downloader}: {said}"
            );
            release.nothing_left()?;
        }
    }
    Ok(())
}

/// A shell runs a piped script as it arrives: whatever has arrived when the line breaks must do nothing.
#[test]
fn half_a_script_does_nothing() -> Result<()> {
    let release = Release::new()?;
    let script = std::fs::read_to_string(release.path("dist/install.sh"))?;
    let ends = script.char_indices().filter(|(_, letter)| *letter == '\n').map(|(at, _)| at);
    let last_line = script.trim_end().rfind('\n').context("one line")?;
    let mut tried = 0;
    for end in ends.filter(|end| *end <= last_line).flat_map(|end| [end, end.saturating_sub(7)]) {
        std::fs::write(release.path("half"), &script[..end])?;
        release.command(&format!("dash -s -- install <{}", release.path("half").display())).output()?;
        tried += 1;
    }
    ensure!(
        tried > 200 && release.server.requests() == 0,
        "{tried} tried, {} requests",
        release.server.requests()
    );
    release.nothing_left()
}

#[test]
fn what_is_missing_is_said() -> Result<()> {
    let release = Release::new()?;
    let without = |missing: &str| -> Result<String> {
        let all = format!("{TOOLS} sha256sum curl dash setsid");
        let tools: Vec<_> = all.split(' ').filter(|tool| *tool != missing).collect();
        let output = release.pipe("dash", "install").env("PATH", release.only(&tools.join(" "))?).output()?;
        ensure!(
            output.status.code() == Some(1) && output.stdout.is_empty(),
            "without {missing}: {}",
            output.status
        );
        Ok(text(&output.stderr))
    };
    for (missing, said) in [
        ("curl", "needs curl or wget"),
        ("sha256sum", "needs sha256sum, shasum or openssl"),
        ("tar", "needs `tar`"),
        ("gzip", "needs `gzip`"),
    ] {
        let seen = without(missing)?;
        ensure!(seen.contains(said), "without {missing}: {seen}");
    }
    let path = release.only(&format!("{TOOLS} sha256sum curl dash setsid"))?;
    std::fs::remove_file(path.join("uname"))?;
    write_program(&path.join("uname"), "#!/bin/sh\n[ \"$1\" = -s ] && echo Plan9 || echo mips\n")?;
    let output = release.pipe("dash", "install").env("PATH", path).output()?;
    let seen = text(&output.stderr);
    ensure!(
        seen.contains("no release for this system (mips-plan9)") && seen.contains("x86_64-linux"),
        "{seen}"
    );
    ensure!(release.server.requests() == 0, "something was downloaded");
    let source = Command::new("dash").arg(repository().join("install.sh")).arg("install").output()?;
    ensure!(text(&source.stderr).contains("this is the script's source"), "{}", text(&source.stderr));
    release.nothing_left()
}

/// A Mac, by stand-ins: its `uname`, a shell under Rosetta, and `shasum` as the only tool for digests.
#[test]
fn a_mac_gets_its_own_archive() -> Result<()> {
    let release = Release::new()?;
    let tools = TOOLS.replace("uname ", "").replace("getconf ", "");
    for (machine, translated, archive) in
        [("arm64", "", "aarch64-darwin"), ("x86_64", "0", "x86_64-darwin"), ("x86_64", "1", "aarch64-darwin")]
    {
        let path = release.only(&format!("{tools} shasum perl curl dash setsid"))?;
        write_program(
            &path.join("uname"),
            &format!(
                "#!/bin/sh\ncase $1 in -s) echo Darwin ;; -m) echo {machine} ;; *) echo Darwin 24.1.0 ;; esac\n"
            ),
        )?;
        write_program(
            &path.join("sysctl"),
            &format!(
                "#!/bin/sh\n[ \"$*\" = '-n sysctl.proc_translated' ] && [ -n '{translated}' ] && echo {translated}\n"
            ),
        )?;
        let output = release.pipe("dash", "inspect").env("PATH", &path).output()?;
        let said = text(&output.stderr);
        ensure!(text(&output.stdout).starts_with("called: inspect |"), "{machine} {translated}: {said}");
        ensure!(said.contains(&format!(" for {archive}\n")), "{machine} {translated}: {said}");
        let helpers = "| with nix-build-broker nix-daemon-gate nix-root-scan nix-unroot\n";
        ensure!(
            text(&output.stdout).ends_with(helpers),
            "what the plans install is not there: {}",
            text(&output.stdout)
        );
        release.nothing_left()?;
    }
    Ok(())
}

/// A program that does not run is told, with what it would need.
#[test]
fn a_system_that_is_too_old_is_told() -> Result<()> {
    let release = Release::new()?;
    std::fs::remove_file(release.path("mac/nix-unroot"))?;
    write_program(&release.path("mac/nix-unroot"), "#!/bin/sh\nexit 1\n")?;
    let packed = Command::new(repository().join("scripts/release"))
        .args(["--programs".into(), format!("aarch64-darwin={}", release.path("mac").display())])
        .args([Path::new("--output"), &release.path("dist")])
        .output()?;
    ensure!(packed.status.success(), "{}", text(&packed.stderr));
    let path = release.only(&format!("{TOOLS} sha256sum curl dash setsid"))?;
    std::fs::remove_file(path.join("uname"))?;
    write_program(
        &path.join("uname"),
        "#!/bin/sh\ncase $1 in -s) echo Darwin ;; -m) echo arm64 ;; *) echo Darwin 17.0 ;; esac\n",
    )?;
    let output = release.pipe("dash", "inspect").env("PATH", &path).output()?;
    let said = text(&output.stderr);
    ensure!(said.contains("they need macOS 11 or newer (this system: Darwin 17.0)"), "{said}");
    release.nothing_left()
}

/// The script itself comes through a pipe, so questions are asked at the terminal.
#[test]
fn questions_are_asked_at_the_terminal() -> Result<()> {
    let release = Release::new()?;
    for shell in SHELLS {
        let inner = format!("cat {} | {shell} -s -- install", release.path("dist/install.sh").display());
        let output = release.command(&format!("script -qec '{inner}' /dev/null")).output()?;
        ensure!(text(&output.stdout).contains("| input terminal |"), "{shell}: {}", text(&output.stdout));
    }
    Ok(())
}

#[test]
fn sudo_is_used_only_where_root_is_needed() -> Result<()> {
    let release = Release::new()?;
    let path = release.only(&format!("{TOOLS} sha256sum curl dash setsid"))?;
    let as_nobody = |words: &str| -> Result<Output> {
        let script = format!(
            "setpriv --reuid=65534 --regid=65534 --clear-groups dash {} {words}",
            release.path("dist/install.sh").display()
        );
        let setpriv = text(&Command::new("sh").args(["-c", "command -v setpriv"]).output()?.stdout);
        let mut command = release.command(&script.replacen("setpriv", setpriv.trim(), 1));
        command.env("PATH", &path).env("NIX_UNROOT_CONFIG", "/a 'b\"").env("https_proxy", "http://p");
        Ok(command.output()?)
    };
    let refused = as_nobody("migrate --yes")?;
    ensure!(text(&refused.stderr).contains("there is no sudo here: run this script as root"), "{refused:?}");
    write_program(
        &path.join("sudo"),
        "#!/bin/sh\necho \"sudo was asked\" >&2\nexec env -i PATH=\"$PATH\" \"$@\"\n",
    )?;
    let served = as_nobody("migrate --yes")?;
    ensure!(text(&served.stderr).contains("sudo was asked"), "{served:?}");
    ensure!(text(&served.stdout).contains("called: migrate --yes |"), "{served:?}");
    ensure!(
        text(&served.stdout).contains("config /a 'b\" | proxy http://p"),
        "the variables are lost: {served:?}"
    );
    for words in ["inspect", "migrate --dry-run", "install --help"] {
        let output = as_nobody(words)?;
        ensure!(!text(&output.stderr).contains("sudo was asked"), "`{words}` asks for root");
        ensure!(text(&output.stdout).contains("| uid 65534 |"), "{output:?}");
    }
    release.nothing_left()
}

#[test]
fn a_temporary_directory_without_programs_is_passed_over() -> Result<()> {
    let release = Release::new()?;
    let output = release
        .command(&format!(
            "unshare -m sh -c 'mount -t tmpfs -o noexec none {0}/tmp && dash {0}/dist/install.sh inspect; ls -A {0}/tmp'",
            release.dir.path().display()
        ))
        .output()?;
    ensure!(text(&output.stdout).starts_with("called: inspect |"), "{}", text(&output.stderr));
    ensure!(text(&output.stdout).lines().count() == 1, "left behind: {}", text(&output.stdout));
    Ok(())
}

#[test]
fn a_signal_leaves_nothing_behind() -> Result<()> {
    let release = Release::new()?;
    release.server.serve(Manner::Stuck);
    for (signal, status) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        // A shell that is started in the background, or by nohup, ignores a signal for good.
        let mut child = Command::new("env")
            .args(["--default-signal", "dash"])
            .args([release.path("dist/install.sh").as_os_str(), "install".as_ref()])
            .env("NIX_UNROOT_RELEASE_URL", &release.server.url)
            .env("TMPDIR", release.path("tmp"))
            .env("no_proxy", "127.0.0.1")
            .stderr(Stdio::null())
            .spawn()?;
        let asked = release.server.requests();
        let start = Instant::now();
        while release.server.requests() == asked && start.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(10));
        }
        // A terminal sends it to the whole group; here the downloader gets it first, as a child of the script.
        run(&format!("pkill -{signal} -P {0}; kill -{signal} {0}", child.id()))?;
        let ended = child.wait()?;
        ensure!(ended.code() == Some(status) || ended.code() == Some(1), "{signal}: {ended}");
        release.nothing_left()?;
    }
    Ok(())
}

/// Every shell script of this repository that runs on somebody's machine.
#[test]
fn shellcheck_finds_nothing() -> Result<()> {
    let output = Command::new("shellcheck")
        .current_dir(repository())
        .args([
            "--shell=sh",
            "install.sh",
            "scripts/release",
            "scripts/check-macos",
            "scripts/macos-toolchain.sh",
            "scripts/setup.sh",
            "scripts/test",
            "scripts/demo",
            ".ci/run",
        ])
        .output()
        .context("cannot run shellcheck: scripts/setup.sh installs it")?;
    ensure!(output.status.success(), "{}", text(&output.stdout));
    Ok(())
}

/// The same programs at the same commit give the same bytes.
#[test]
fn a_release_is_reproducible() -> Result<()> {
    let (one, two) = (Release::new()?, Release::new()?);
    let sums = |release: &Release| std::fs::read_to_string(release.path("dist/SHA256SUMS"));
    ensure!(sums(&one)? == sums(&two)?, "{}{}", sums(&one)?, sums(&two)?);
    Ok(())
}

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn write_program(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text)?;
    run(&format!("chmod 0755 {}", path.display()))
}

fn run(script: &str) -> Result<()> {
    let status = Command::new("sh").args(["-c", script]).status()?;
    ensure!(status.success(), "`{script}`: {status}");
    Ok(())
}
