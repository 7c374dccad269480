//! One piped command: `install.sh` with a packed release of the programs under test, from a web server in the machine.

use super::install::build_as_alice;
use super::target::subuids;
use crate::harness::exec::Outcome;
use crate::harness::layout::archive;
use crate::harness::machine::Machine;
use crate::harness::manifest::Manifest;
use crate::harness::{image, product};
use anyhow::{Context, Result, ensure};

const URL: &str = "http://127.0.0.1:8080";

/// A machine without Nix and without our programs, with a web server that has a release and an archive of Nix, and the words
/// that name that archive.
fn served(test: &str) -> Result<(Machine, String)> {
    let mut machine = Machine::copy_of(&image::without_nix()?.join("tree"), test)?;
    let release = product::release()?;
    for entry in std::fs::read_dir(release.path())? {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        machine.install_file(&path, &format!("/srv/www/{name}"), "0644")?;
    }
    machine.install_file(&archive::cached()?.file(), "/srv/www/nix.tar", "0644")?;
    machine.boot()?;
    machine.root("useradd -m -s /bin/bash alice; ln -s busybox /usr/bin/wget")?;
    machine.background("root", "exec busybox httpd -f -p 127.0.0.1:8080 -h /srv/www")?;
    machine.root(&format!(
        "for i in $(seq 100); do curl -fs -o /dev/null {URL}/SHA256SUMS && exit 0; sleep 0.1; done; exit 1"
    ))?;
    let digest = machine.root("sha256sum /srv/www/nix.tar | cut -d' ' -f1")?;
    Ok((machine, format!("--nix-archive {URL}/nix.tar --nix-archive-sha256 {digest}")))
}

/// `DOWNLOADER URL/install.sh | sh -s -- WORDS`, without a terminal.
fn piped(machine: &Machine, downloader: &str, words: &str) -> Result<Outcome> {
    let line = format!(
        "{downloader} {URL}/install.sh | NIX_UNROOT_RELEASE_URL={URL} setsid --wait sh -s -- {words}"
    );
    machine.try_root(&line)
}

#[test]
fn one_piped_command_installs_and_what_it_installed_removes() -> Result<()> {
    let (machine, archive) = served("piped")?;
    let before = Manifest::take(&machine)?;
    piped(&machine, "curl -fsSL", &format!("install --yes {archive}"))?.exits(0)?;
    let (_, uid) = build_as_alice(&machine, "first")?;
    ensure!(subuids(&machine)?.contains(&uid), "the build ran as {uid}");
    // The programs stay, and not those of the download.
    machine.root("/usr/local/sbin/nix-unroot verify; not ls -d /tmp/nix-unroot.*; not ls -d /var/tmp/nix-unroot.*; test ! -e /root/nix-unroot")?;
    machine.root("/usr/local/sbin/nix-unroot rollback --yes")?;
    before.assert_same(
        &Manifest::take(&machine)?,
        "after an installation by a piped command, and its rollback",
    )?;

    piped(&machine, "wget -qO-", &format!("install --yes {archive}"))?.exits(0)?;
    piped(&machine, "wget -qO-", "uninstall --yes")?.exits(0)?;
    machine.root("test ! -e /nix; not getent passwd nix; not ls -d /tmp/nix-unroot.*")?;
    Ok(())
}

#[test]
fn a_piped_command_asks_at_the_terminal_and_gives_in_politely() -> Result<()> {
    let (machine, archive) = served("piped-asks")?;
    let before = Manifest::take(&machine)?;
    let same = |when: &str| before.assert_same(&Manifest::take(&machine)?, when);

    let unasked = piped(&machine, "curl -fsSL", &format!("install {archive}"))?.exits(2)?;
    ensure!(unasked.stderr.contains("--yes"), "{unasked}");
    same("without a terminal and without --yes")?;

    // script(1) gives a terminal; the pipe into sh stays a pipe, and the question is asked at the terminal.
    let line =
        format!("curl -fsSL {URL}/install.sh | NIX_UNROOT_RELEASE_URL={URL} sh -s -- install {archive}");
    machine.write_file("/root/line", "0755", line)?;
    let declined = machine
        .try_root("(sleep 8; printf n; sleep 1) | TERM=xterm script -qec 'bash -o pipefail /root/line' /dev/null && s=0 || s=$?; rm /root/line; exit $s")?;
    ensure!(declined.stdout.contains("Install Nix on this machine?"), "{declined}");
    ensure!(declined.stdout.contains("nothing was changed") && declined.status == 1, "{declined}");
    same("after a no")?;

    machine.root("mount --bind /usr/local /usr/local; mount -o remount,bind,ro /usr/local")?;
    let refused = piped(&machine, "curl -fsSL", &format!("install --yes {archive}"))?.exits(3)?;
    ensure!(
        refused.stdout.contains("system-read-only") && refused.stdout.contains("/usr/local"),
        "{refused}"
    );
    machine.root("umount /usr/local")?;
    same("with a read-only /usr/local")
}
