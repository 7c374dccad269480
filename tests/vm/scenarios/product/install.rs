//! A machine without Nix gets an unprivileged one, and is rid of it again.

use super::interrupted::killed_at;
use super::target::{assert_nothing_of_root, subuids};
use crate::harness::cache::Cached;
use crate::harness::layout::archive;
use crate::harness::machine::Machine;
use crate::harness::manifest::Manifest;
use crate::harness::{image, product};
use anyhow::{Result, ensure};

/// Where the archive lies in a machine.
pub const ARCHIVE: &str = "/root/nix.tar";
/// A booted machine made of a base tree, with a user, the programs under test and an archive.
pub fn machine_of(base: Cached, test: &str) -> Result<Machine> {
    let mut machine = Machine::copy_of(&base.join("tree"), test)?;
    // The archive may have to be made from it.
    drop(base);
    product::install(&machine)?;
    machine.install_file(&archive::cached()?.file(), ARCHIVE, "0644")?;
    machine.boot()?;
    machine.root(
        "useradd -m -s /bin/bash alice; if getent group nix-users; then usermod -aG nix-users alice; fi",
    )?;
    Ok(machine)
}

pub fn clean(test: &str) -> Result<Machine> {
    machine_of(image::without_nix()?, test)
}

/// The words that name the archive and its digest.
pub fn from_archive(machine: &Machine) -> Result<String> {
    Ok(format!("--nix-archive {ARCHIVE} --nix-archive-sha256 {}", digest(machine, ARCHIVE)?))
}

fn digest(machine: &Machine, path: &str) -> Result<String> {
    machine.root(&format!("sha256sum {path} | cut -d' ' -f1"))
}

/// A build that needs nothing but a shell; its output is the uid that it ran under.
pub fn expression(name: &str) -> String {
    format!(
        "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         args = [ \"-c\" \"read inside outside count </proc/self/uid_map; echo $outside >$out\" ]; }}"
    )
}

/// A build as alice, whose login shell finds Nix by itself: its store path, and the uid that it ran under.
pub fn build_as_alice(machine: &Machine, name: &str) -> Result<(String, u32)> {
    let path = machine.user("alice", &format!("nix-build --no-out-link -E '{}'", expression(name)))?;
    let uid = machine.root(&format!("cat {path}"))?.trim().parse()?;
    Ok((path, uid))
}

#[test]
fn an_installed_nix_works_and_goes_without_a_trace() -> Result<()> {
    let machine = clean("install")?;
    let before = Manifest::take(&machine)?;
    let options = format!("--extra-conf 'max-jobs = 3' {}", from_archive(&machine)?);
    let environment = "https_proxy=http://proxy.example:3128 NO_PROXY=localhost";
    let program = format!("{}/nix-unroot", product::DIR);
    let first = machine.root(&format!("{environment} {program} install --yes --json {options}"))?;
    ensure!(first.contains("\"changed\": true"), "{first}");

    let (path, uid) = build_as_alice(&machine, "first")?;
    ensure!(subuids(&machine)?.contains(&uid), "the build ran as {uid}");
    ensure!(machine.root(&format!("stat -c %U {path}"))? == "nix");
    assert_nothing_of_root(&machine)?;
    for (path, expected) in [
        ("/nix", "root:root 755"),
        ("/nix/store", "root:nix 1775"),
        ("/nix/var/nix", "root:nix 1775"),
        ("/nix/var/nix/daemon-socket", "root:root 755"),
        ("/nix/var/nix/gc-roots-socket", "root:root 755"),
        ("/nix/var/nix/db/db.sqlite", "nix:nix 644"),
        ("/etc/profile.d/nix.sh", "root:root 644"),
    ] {
        let seen = machine.root(&format!("stat -c '%U:%G %a' {path}"))?;
        ensure!(seen == expected, "{path} is {seen}, should be {expected}");
    }
    // What is registered is there, to the bit, and a collection leaves Nix itself.
    machine.user("alice", "nix-store --verify --check-contents; nix-store --gc; nix-store --version")?;
    super::doctor::assert_sound(&machine, "after an installation")?;
    the_environment_is_right(&machine)?;

    let again = product::run(&machine, &format!("install --yes {options}"))?.exits(0)?;
    ensure!(again.stderr.contains("nothing to do") && again.stderr.contains("changed: false"), "{again}");

    product::ok(&machine, "rollback --yes")?;
    before.assert_same(&Manifest::take(&machine)?, "after an installation and its rollback")
}

fn the_environment_is_right(machine: &Machine) -> Result<()> {
    let units = machine.root(
        "cat /etc/systemd/system/nix-daemon*.service /etc/systemd/system/nix-daemon*@.service || true",
    )?;
    for line in
        ["Environment=\"https_proxy=http://proxy.example:3128\"", "Environment=\"NO_PROXY=localhost\""]
    {
        ensure!(units.contains(line), "{line} is missing in {units}");
    }
    let conf = machine.root("cat /etc/nix/nix.conf")?;
    ensure!(conf.contains("\nmax-jobs = 3\n"), "{conf}");
    // In root's shells, login or not, nothing of /nix.
    for shell in ["bash -lc", "bash -ic", "sh -lc"] {
        let path = machine.root(&format!("{shell} 'echo $PATH:$NIX_PROFILES' 2>/dev/null"))?;
        ensure!(!path.contains("nix"), "root's {shell}: {path}");
    }
    // In everybody else's, once.
    for shell in ["bash -lc", "bash -ic", "sh -lc"] {
        let path = machine.user("alice", &format!("env -i HOME=$HOME {shell} 'echo $PATH' 2>/dev/null"))?;
        let count = path.matches("/nix/var/nix/profiles/default/bin").count();
        ensure!(count == 1 && path.starts_with("/home/alice/.nix-profile/bin:"), "alice's {shell}: {path}");
    }
    Ok(())
}

/// Over HTTP, going on where an earlier download broke off; started by the next boot, with no shell touched.
#[test]
fn an_archive_is_downloaded_and_a_broken_download_goes_on() -> Result<()> {
    let mut machine = clean("install-http")?;
    machine.root("mkdir /srv/www; mv nix.tar /srv/www/")?;
    machine.background("root", "exec busybox httpd -f -p 127.0.0.1:8080 -h /srv/www")?;
    let digest = digest(&machine, "/srv/www/nix.tar")?;
    let before = Manifest::take(&machine)?;
    let part = format!("/var/lib/nix-unroot/archives/{digest}.part");
    machine.root(&format!(
        "mkdir -pm700 /var/lib/nix-unroot/archives; head -c 20000000 /srv/www/nix.tar >{part}; touch -d @7 {part}"
    ))?;
    let options = format!(
        "--nix-archive http://127.0.0.1:8080/nix.tar --nix-archive-sha256 {digest} --no-start --no-shell-changes"
    );
    // A file that is not the beginning of the right one is found out by the digest, and thrown away.
    machine.root(&format!("cp {part} /root/good; printf x | dd of={part} conv=notrunc status=none"))?;
    let refused = product::run(&machine, &format!("install --yes {options}"))?.exits(1)?;
    ensure!(refused.stderr.contains("SHA-256"), "{refused}");
    machine.root(&format!("test ! -e /nix; test ! -e {part}; mv /root/good {part}"))?;

    product::ok(&machine, &format!("install --yes {options}"))?;
    machine.root("test ! -e /etc/profile.d/nix.sh; ! grep -r nix-unroot /etc/bash.bashrc")?;
    let waiting =
        machine.root("systemctl is-active nix-root-scan.socket || true; ls /var/lib/nix-unroot/archives")?;
    ensure!(waiting == "inactive", "{waiting}");
    machine.reboot()?;
    product::ok(&machine, "verify")?;
    product::ok(&machine, "rollback --yes")?;
    before.assert_same(&Manifest::take(&machine)?, "after an installation, a boot and a rollback")
}

#[test]
fn an_archive_that_is_not_right_changes_nothing() -> Result<()> {
    let machine = clean("install-hostile")?;
    machine.root("cp nix.tar absolute.tar; tar -P -rf absolute.tar /etc/hostname")?;
    machine.root("ln -s /etc/shadow out; cp nix.tar link.tar")?;
    machine.root(
        "path=$(tar -tf nix.tar | grep /store/ | sed -n 2p); \
         tar --transform \"s,^out,${path%/}/out,\" -rf link.tar out; head -c 9000000 nix.tar >cut.tar; echo html >no.tar",
    )?;
    let before = Manifest::take(&machine)?;
    for (arguments, status, part) in [
        (format!("--nix-archive {ARCHIVE}"), 2, "--nix-archive-sha256"),
        (format!("--nix-archive {ARCHIVE} --nix-archive-sha256 {}", "0".repeat(64)), 2, "not the archive"),
        ("--nix-archive /root/none.tar".to_owned(), 2, "/root/none.tar"),
        (named(&machine, "/root/absolute.tar")?, 1, "absolute path"),
        (named(&machine, "/root/link.tar")?, 1, "leads out of the store"),
        (named(&machine, "/root/cut.tar")?, 1, "cannot unpack"),
        (named(&machine, "/root/no.tar")?, 1, "cannot unpack"),
    ] {
        let refused = product::run(&machine, &format!("install --yes {arguments}"))?.exits(status)?;
        ensure!(refused.stderr.contains(part), "{part:?} is missing: {refused}");
        before.assert_same(&Manifest::take(&machine)?, &format!("after install {arguments}"))?;
    }
    Ok(())
}

/// Any process of its uid may stop the child that unpacks. It ends with the run, which a signal ends.
#[test]
fn a_child_that_is_stopped_while_it_unpacks_holds_nobody_up() -> Result<()> {
    let machine = clean("install-stopped")?;
    let before = Manifest::take(&machine)?;
    let install = format!("{}/nix-unroot install --yes {}", product::DIR, from_archive(&machine)?);
    machine.background("root", &format!("{install} >/run/said 2>&1; echo $? >/run/ended"))?;
    machine.root(
        "for i in $(seq 6000); do pkill -STOP -f '[i]nternal-unpack-archive' && break; sleep 0.01; done
         sleep 1; pkill -INT -o -x nix-unroot
         for i in $(seq 1200); do [ -s /run/ended ] && break; sleep 0.1; done; ! pgrep -f '[i]nternal-unpack-archive'",
    )?;
    let (status, said) = (machine.root("cat /run/ended")?, machine.root("cat /run/said")?);
    ensure!(status == "1" && said.contains("cannot unpack"), "exit status {status}: {said}");
    ensure!(said.contains("stopped by a signal"), "{said}");
    before.assert_same(&Manifest::take(&machine)?, "after an installation that was stopped while it unpacked")
}

fn named(machine: &Machine, path: &str) -> Result<String> {
    Ok(format!("--nix-archive {path} --nix-archive-sha256 {}", digest(machine, path)?))
}

#[test]
fn nothing_is_installed_beside_another_nix() -> Result<()> {
    let machine = machine_of(image::with_debian_nix()?, "install-beside")?;
    let before = Manifest::take(&machine)?;
    let refused = product::run(&machine, &format!("install --yes {}", from_archive(&machine)?))?.exits(3)?;
    ensure!(refused.stdout.contains("nix-present") && refused.stdout.contains("migrate"), "{refused}");
    before.assert_same(&Manifest::take(&machine)?, "after an installation that was refused")
}

/// On a terminal: what will happen, in short and on request in full, and a question.
#[test]
fn a_person_is_asked_and_told() -> Result<()> {
    let machine = clean("install-asked")?;
    let before = Manifest::take(&machine)?;
    let program = format!("{}/nix-unroot install {}", product::DIR, from_archive(&machine)?);
    let typed = "(sleep 6; printf e; sleep 2; printf n; sleep 1)";
    let told =
        machine.try_root(&format!("{typed} | TERM=xterm script -qec '{program}' /dev/null"))?.exits(1)?;
    for part in ["Install Nix on this machine?", "makes /nix", "undone:", "nothing was changed"] {
        ensure!(told.stdout.contains(part), "{part:?} is missing: {told}");
    }
    let unasked = product::run(&machine, &format!("install {}", from_archive(&machine)?))?.exits(2)?;
    ensure!(unasked.stderr.contains("--yes"), "{unasked}");
    let plan = product::ok(&machine, &format!("plan {}", from_archive(&machine)?))?;
    ensure!(plan.contains("name = \"install\"") && plan.contains("unpack-archive"), "{plan}");
    before.assert_same(&Manifest::take(&machine)?, "after questions")
}

#[test]
fn an_installation_that_dies_anywhere_is_undone_or_finished() -> Result<()> {
    let machine = clean("install-killed")?;
    let before = Manifest::take(&machine)?;
    let install = format!("install --yes {}", from_archive(&machine)?);
    killed_at(&machine, "do:unpack-archive:applied", &install)?;
    killed_at(&machine, "do:register-paths:applied", "resume --yes")?;
    killed_at(&machine, "do:install-profile:applied", "resume --yes")?;
    product::ok(&machine, "resume --yes")?;
    build_as_alice(&machine, "resumed")?;
    product::ok(&machine, "verify")?;
    killed_at(&machine, "undo:install-profile:applied", "rollback --yes")?;
    killed_at(&machine, "undo:unpack-archive:applied", "resume --yes")?;
    product::ok(&machine, "resume --yes")?;
    before.assert_same(&Manifest::take(&machine)?, "after kills in both directions")
}

/// Removing Nix undoes the installation, which takes its store away, also from below a repair: `--keep-store` forbids that.
#[test]
fn an_installed_store_does_not_go_with_keep_store() -> Result<()> {
    let machine = clean("install-keep-store")?;
    product::ok(&machine, &format!("install --yes {}", from_archive(&machine)?))?;
    let path = build_as_alice(&machine, "mine")?.0;
    let shown = |words: &str| -> Result<()> {
        let before = Manifest::take(&machine)?;
        let refused = product::run(&machine, words)?.exits(3)?;
        let said = &refused.stdout;
        ensure!(
            said.contains("run 1 (install) made the store") && said.contains("nix copy --all"),
            "{refused}"
        );
        ensure!(!said.contains("/nix: --keep-store"), "it says that the store stays: {refused}");
        before.assert_same(&Manifest::take(&machine)?, words)
    };
    shown("uninstall --dry-run --keep-store")?;
    shown("uninstall --yes --keep-store")?;
    machine.root("chown root:root /nix/var/nix/db/db.sqlite")?;
    product::ok(&machine, "doctor --repair --yes")?;
    shown("uninstall --yes --keep-store")?;
    machine.root(&format!("test -s {path}"))?;
    product::ok(&machine, "uninstall --yes")?;
    machine.root("test ! -e /nix").map(drop)
}
