//! The world moved on: what administrators, packages and other installers do between a migration and its rollback.

use super::interrupted::manifest;
use super::target::{assert_root_owned_build, assert_trust};
use super::{migrate, ready};
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::manifest::Manifest;
use crate::harness::{nixcmd, product};
use anyhow::{Context, Result, ensure};

on_both_layouts!(
    edits_are_merged,
    conflicts_are_named_before_anything_is_undone,
    accounts_that_are_gone_are_no_obstacle,
);

const BACKUPS: &str = "/var/lib/nix-unroot/backups/run-1";
const UNITS: &str = "/etc/systemd/system";

/// Fails unless the machine differs from `before` exactly in the things named: all of them, and nothing but them.
pub fn assert_differs_only_in(
    before: &Manifest,
    machine: &Machine,
    named: &[&str],
    when: &str,
) -> Result<()> {
    let differences = before.differences(&manifest(machine)?);
    // A difference is a sign, a name (of a path, mostly) and what differs.
    let is_about = |line: &str, name: &str| line[2..].starts_with(name);
    let others: Vec<_> =
        differences.iter().filter(|line| !named.iter().any(|name| is_about(line, name))).collect();
    ensure!(others.is_empty(), "{when}: the machine differs in more than it should: {others:#?}");
    let missing: Vec<_> =
        named.iter().filter(|name| !differences.iter().any(|line| is_about(line, name))).collect();
    ensure!(missing.is_empty(), "{when}: these are as before: {missing:?}");
    Ok(())
}

fn rolled_back_with_notes(machine: &Machine, notes: &[&str]) -> Result<()> {
    let outcome = product::run(machine, "rollback --yes")?.exits(0)?;
    for note in notes {
        ensure!(outcome.stderr.contains(note), "{note:?} is not said: {outcome}");
    }
    Ok(())
}

/// What is not in the same place as ours stays, what is ours goes; deleted files are no obstacle.
fn edits_are_merged(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "merged")?;
    let before = manifest(&machine)?;
    migrate(&machine)?;
    machine.root(&format!(
        "sed -i '1i # An administrator was here.' /etc/nix/nix.conf; echo 'max-jobs = 3' >>/etc/nix/nix.conf
         useradd -M erin; usermod -aG nix alice; echo erin:1000:5 >>/etc/subuid
         rm /etc/tmpfiles.d/nix-daemon.conf {UNITS}/nix-root-scan.service {UNITS}/sockets.target.wants/nix-daemon.socket
         chmod 0700 {UNITS}/nix-root-scan.socket; chmod 0711 /nix/var/log
         mkdir /var/lib/nix-daemon/.ssh; echo only copy >/var/lib/nix-daemon/.ssh/id"
    ))?;
    let built = nixcmd::build(&machine, "bob", "bob-meanwhile", "")?;
    rolled_back_with_notes(
        &machine,
        &[
            "/etc/nix/nix.conf was edited since",
            "/etc/subuid was edited since",
            "the group nix goes; its members were alice",
            "put-aside-nix-daemon",
        ],
    )?;
    let conf = machine.root("cat /etc/nix/nix.conf")?;
    ensure!(conf.starts_with("# An administrator was here.\n") && conf.ends_with("\nmax-jobs = 3"), "{conf}");
    ensure!(!conf.contains("nix-unroot") && conf.contains("trusted-users = root @nixtrust"), "{conf}");
    ensure!(machine.root(&format!("cat {BACKUPS}/put-aside-nix-daemon/.ssh/id"))? == "only copy");
    machine
        .root("chmod 0755 /nix/var/log; grep -qx erin:1000:5 /etc/subuid; id erin; ! getent passwd nix")?;
    assert_root_owned_build(&machine, "bob", "bob-after")?;
    let named = [
        "/etc/nix/nix.conf",
        "/etc/passwd",
        "/etc/shadow",
        "/etc/group",
        "/etc/gshadow",
        "/etc/subuid",
        // useradd gives a user a range.
        "/etc/subgid",
        &built,
        "/nix/store/",
        "/nix/var/nix/gcroots/auto/",
        "/nix/var/log/nix/drvs/",
        "db: ",
    ];
    assert_differs_only_in(&before, &machine, &named, "after edits and a rollback")
}

/// More that happens to a file which a migration edited: what is done before it and after it, what is said, what must hold then, what
/// makes the machine as it was before, and what differs until then.
type Fate = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static [&'static str]);
const FATES: [Fate; 4] = [
    (
        "true",
        "echo 'access-tokens = secret' >>/etc/nix/nix.conf; chmod 0640 /etc/nix/nix.conf; chgrp alice /etc/nix/nix.conf",
        "/etc/nix/nix.conf was edited since",
        "test \"$(stat -c '%a %G' /etc/nix/nix.conf)\" = '640 alice'; grep -q secret /etc/nix/nix.conf; ! grep nix-unroot /etc/nix/nix.conf",
        "cp -p /root/nix.conf /etc/nix/nix.conf",
        &["/etc/nix/nix.conf"],
    ),
    (
        "true",
        "chmod 0600 /etc/nix/nix.conf",
        "/etc/nix/nix.conf",
        "test $(stat -c %a /etc/nix/nix.conf) = 600",
        "chmod 0644 /etc/nix/nix.conf",
        &["/etc/nix/nix.conf"],
    ),
    ("true", "rm /etc/nix/nix.conf /etc/subgid", "done: everything is as it was before", "true", "true", &[]),
    (
        "mv /etc/nix/nix.conf /srv/conf; ln -s /srv/conf /etc/nix/nix.conf",
        "sed -i '1i # An administrator was here.' /etc/nix/nix.conf",
        "/etc/nix/nix.conf",
        "not grep nix-unroot /etc/nix/nix.conf /srv/conf; test -f /etc/nix/nix.conf; head -1 /etc/nix/nix.conf | grep administrator",
        "rm /srv/conf; cp -p /root/nix.conf /etc/nix/nix.conf",
        &["/etc/nix/nix.conf", "/srv/conf"],
    ),
];

/// Its owner, its mode, that it is gone, and that it is another file by now.
#[test]
fn a_file_that_was_edited_may_have_any_fate() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "fates")?;
    machine.root("cp -p /etc/nix/nix.conf /root/nix.conf")?;
    let first = manifest(&machine)?;
    for (before, since, said, holds, undo, named) in FATES {
        machine.root(before)?;
        migrate(&machine)?;
        machine.root(since)?;
        rolled_back_with_notes(&machine, &[said])?;
        machine.root(holds).with_context(|| format!("after {since:?} and a rollback"))?;
        assert_differs_only_in(&first, &machine, named, since)?;
        machine.root(undo)?;
        first.assert_same(&manifest(&machine)?, &format!("but for what {since:?} made"))?;
    }
    Ok(())
}

/// What cannot be decided: what is done to the machine, the path, and what is told of it.
const CONFLICTS: [(&str, &str, &str); 8] = [
    (
        "sed -i s/NoNewPrivileges=yes/NoNewPrivileges=no/ PATH",
        "/etc/systemd/system/nix-daemon-gate.service",
        "+NoNewPrivileges=no",
    ),
    (
        "rm PATH; mkdir PATH; echo theirs >PATH/file",
        "/etc/systemd/system/nix-root-scan.service",
        "a directory",
    ),
    (
        "rm PATH; ln -s /etc/hostname PATH",
        "/etc/systemd/system/nix-root-scan.socket",
        "a link to /etc/hostname",
    ),
    ("rm PATH; echo 'd /srv/own 0755' >PATH", "/etc/tmpfiles.d/nix-daemon.conf", "+d /srv/own 0755"),
    (
        "sed -i '/^# nix-unroot/,$s/^sandbox = true/sandbox = relaxed/' PATH",
        "/etc/nix/nix.conf",
        "+sandbox = relaxed",
    ),
    ("install /bin/true PATH", "/usr/local/libexec/nix-unroot/nix-root-scan", "SHA-256"),
    ("mv PATH /srv/home; ln -s /srv/home PATH", "/var/lib/nix-daemon", "a link to /srv/home"),
    (
        "ln -sfn /usr/lib/systemd/system/dbus.socket PATH",
        "/etc/systemd/system/sockets.target.wants/nix-root-scan.socket",
        "a link to /usr/lib/systemd/system/dbus.socket",
    ),
];

fn conflicts_are_named_before_anything_is_undone(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "conflicts")?;
    let before = manifest(&machine)?;
    let move_on = || -> Result<Manifest> {
        migrate(&machine)?;
        for (script, path, _) in CONFLICTS {
            machine.root(&script.replace("PATH", path))?;
        }
        // The scanner comes and goes by itself.
        Manifest::of_tree(&machine)
    };

    let moved_on = move_on()?;
    let refused = product::run(&machine, "rollback --yes --json")?.exits(3)?;
    let document: serde_json::Value = serde_json::from_str(&refused.stdout)?;
    let listed = document["conflicts"].as_array().context("no conflicts in the document")?;
    ensure!(listed.len() == CONFLICTS.len() && document["outcome"] == "conflicts", "{refused}");
    for (_, path, told) in CONFLICTS {
        ensure!(listed.iter().any(|conflict| conflict["path"] == path), "{path} is not listed: {refused}");
        ensure!(refused.stderr.contains(path) && refused.stderr.contains(told), "{path}: {refused}");
    }
    for part in
        ["before the migration: nothing", "the migration wrote:  a file of", "--keep theirs", "--keep ours"]
    {
        ensure!(refused.stderr.contains(part), "{part:?} is missing: {refused}");
    }
    moved_on.assert_same(&Manifest::of_tree(&machine)?, "after a rollback that met conflicts")?;

    product::ok(&machine, "rollback --yes --keep ours")?;
    machine.root("rm -r /srv/home")?;
    before.assert_same(&manifest(&machine)?, "after a rollback with --keep ours")?;
    let kept = machine.root(&format!(
        "cd {BACKUPS}; cat put-aside-nix-root-scan.service/file; readlink put-aside-nix-root-scan.socket put-aside-nix-root-scan.socket.2 put-aside-nix-daemon
         grep -c relaxed put-aside-nix.conf; cmp /bin/true put-aside-nix-root-scan; cat put-aside-nix-daemon.conf
         grep -c NoNewPrivileges=no put-aside-nix-daemon-gate.service"
    ))?;
    ensure!(
        kept == "theirs\n/usr/lib/systemd/system/dbus.socket\n/etc/hostname\n/srv/home\n1\nd /srv/own 0755\n1",
        "put aside: {kept}"
    );

    move_on()?;
    // One that dies halfway goes on without being asked again.
    super::interrupted::killed_at(&machine, "undo:reown-store:applied", "rollback --yes --keep theirs")?;
    product::ok(&machine, "resume --yes")?;
    let named = CONFLICTS.map(|(_, path, _)| path);
    // What systemd makes of the units that stay belongs to them.
    let more = [
        "/srv/home",
        "/usr/local/libexec/nix-unroot",
        "unit: nix-daemon-gate.service",
        "unit: nix-root-scan.service",
        "unit: nix-root-scan.socket",
    ];
    assert_differs_only_in(&before, &machine, &[&named[..], &more].concat(), "after --keep theirs")?;
    let conf = machine.root("tail -1 /etc/nix/nix.conf; grep -c nix-unroot /etc/nix/nix.conf || true")?;
    ensure!(conf == "sandbox = relaxed\n0", "nix.conf: {conf}");
    Ok(())
}

/// Somebody removes the daemon's accounts; their files go back all the same.
fn accounts_that_are_gone_are_no_obstacle(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "no-accounts")?;
    let before = manifest(&machine)?;
    migrate(&machine)?;
    machine
        .root("systemctl stop nix-daemon.socket nix-root-scan.socket; userdel nix; userdel nix-root-scan")?;
    product::ok(&machine, "rollback --yes")?;
    before.assert_same(&manifest(&machine)?, "after a rollback without accounts")?;

    // One of that name that is not ours, with ranges of its own.
    migrate(&machine)?;
    machine.root("systemctl stop nix-daemon.socket; userdel nix; useradd -M -u 4711 nix")?;
    let refused = product::run(&machine, "rollback --yes")?.exits(3)?;
    ensure!(refused.stderr.contains("made the user nix anew"), "{refused}");
    product::ok(&machine, "rollback --yes --keep theirs")?;
    machine.root("test $(id -u nix) = 4711; test $(stat -c %U /nix/var/nix/db) = root; userdel nix")?;
    Ok(())
}

/// A person on a terminal is asked for each, sees the difference, and may stop.
#[test]
fn a_person_chooses() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "chooses")?;
    let before = manifest(&machine)?;
    migrate(&machine)?;
    machine.root("echo 'x /srv' >>/etc/tmpfiles.d/nix-daemon.conf")?;
    let moved_on = Manifest::of_tree(&machine)?;
    let answered = |keys: &str| {
        let program = format!("{}/nix-unroot rollback", product::DIR);
        machine
            .try_root(&format!("(sleep 3; {keys}; sleep 1) | TERM=xterm script -qec '{program}' /dev/null"))
    };
    // The cursor stands on "stop".
    let stopped = answered(r"printf '\r'")?.exits(3)?;
    for part in ["Whose version stays?", "+x /srv", "nothing was changed"] {
        ensure!(stopped.stdout.contains(part), "{part:?} is missing: {stopped}");
    }
    moved_on.assert_same(&Manifest::of_tree(&machine)?, "after a person stopped")?;
    let chosen = answered(r"printf '\033[A'; sleep 0.5; printf '\r'; sleep 2; printf y")?.exits(0)?;
    ensure!(chosen.stdout.contains("put-aside-nix-daemon.conf"), "{chosen}");
    before.assert_same(&manifest(&machine)?, "after a person chose ours")
}

/// Makes newer packages of the installed ones: the same files and maintainer scripts, a higher version, another description in
/// the unit, another line in tmpfiles.d, and a changed nix.conf.
pub const NEWER_PACKAGES: &str = r#"
mkdir /root/debs; cd /root/debs
for package in nix-bin nix-setup-systemd; do
  mkdir -p $package/DEBIAN
  dpkg -L $package | while read -r file; do [ -d "$file" ] || [ ! -e "$file" ] || echo "$file"; done | tar -C / -cf - --files-from=- 2>/dev/null | tar -C $package -xf -
  dpkg-query -s $package | sed '/^Status:/d; /^Conffiles:/,/^[^ ]/{/^Conffiles:/d; /^ /d}; s/^Version: .*/&+newer/; s/(= \(2[^)]*\))/(= \1+newer)/' >$package/DEBIAN/control
  for part in postinst prerm postrm preinst conffiles triggers; do
    [ ! -e /var/lib/dpkg/info/$package.$part ] || cp -p /var/lib/dpkg/info/$package.$part $package/DEBIAN/$part
  done
done
# As shipped, not as the administrator made it.
printf '# A newer file.\nbuild-users-group = nixbld\n' >nix-setup-systemd/etc/nix/nix.conf
sed -i 's/^Description=.*/& (newer)/' nix-setup-systemd/usr/lib/systemd/system/nix-daemon.service
echo '# newer' >>nix-setup-systemd/usr/lib/tmpfiles.d/nix-daemon.conf
for package in nix-bin nix-setup-systemd; do dpkg-deb --build --root-owner-group $package >/dev/null; done
ls *.deb
"#;

/// The package is upgraded while Nix runs unprivileged: its maintainer scripts enable, start and re-own what they know of. The
/// migration holds, and a rollback gives the root-owned Nix of the newer package.
#[test]
fn the_package_is_upgraded() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "upgraded")?;
    machine.root(NEWER_PACKAGES)?;
    let before = manifest(&machine)?;
    migrate(&machine)?;
    for option in ["--force-confold", "--force-confask --force-confnew"] {
        let said = machine
            .root(&format!("DEBIAN_FRONTEND=noninteractive dpkg {option} -i /root/debs/*.deb 2>&1"))?;
        ensure!(said.contains("Setting up nix-setup-systemd"), "{said}");
        if option == "--force-confold" {
            super::target::assert_migrated(&machine)?;
            product::ok(&machine, "verify")?;
            assert_trust(&machine)?;
            machine.root("! systemctl is-active nix-daemon.service")?;
        }
    }
    // Their nix.conf took the place of the one with our block, which dpkg kept.
    machine
        .root("grep -q 'A newer file' /etc/nix/nix.conf; grep -q nix-unroot /etc/nix/nix.conf.dpkg-old")?;
    rolled_back_with_notes(&machine, &["/etc/nix/nix.conf was edited since"])?;
    let named = [
        "/etc/nix/nix.conf",
        "/etc/nix/nix.conf.dpkg-old",
        "/usr/lib/systemd/system/nix-daemon.service",
        "/usr/lib/tmpfiles.d/nix-daemon.conf",
        "/var/lib/dpkg/",
    ];
    assert_differs_only_in(&before, &machine, &named, "after an upgrade and a rollback")?;
    let unit = machine.root("systemctl show -P Description nix-daemon.service")?;
    ensure!(unit.ends_with("(newer)"), "the newer package's unit is in effect: {unit}");
    machine.root("cp /etc/nix/nix.conf.dpkg-old /etc/nix/nix.conf; sed -i '/^# nix-unroot/,/^# nix-unroot.*(end)/d' /etc/nix/nix.conf; systemctl restart nix-daemon.service")?;
    assert_root_owned_build(&machine, "bob", "bob-after-upgrade")
}

/// What the official installer does to a machine on which it was run before: it overwrites nix.conf, links its tmpfiles entry and
/// its units again, makes build users that are missing, and starts its daemon as root.
pub const INSTALLED_AGAIN: &str = r"
profile=/nix/var/nix/profiles/default
userdel nixbld32
useradd --system --uid 30032 --gid 30000 --groups nixbld --no-user-group --home-dir /var/empty --comment 'Nix build user 32' --shell /sbin/nologin --password '!' nixbld32
printf '\nbuild-users-group = nixbld\n' | install -m 0644 /dev/stdin /etc/nix/nix.conf
ln -sfn $profile/lib/tmpfiles.d/nix-daemon.conf /etc/tmpfiles.d/nix-daemon.conf
systemd-tmpfiles --create --prefix=/nix/var/nix
for unit in nix-daemon.service nix-daemon.socket; do ln -sfn $profile/lib/systemd/system/$unit /etc/systemd/system/$unit; done
ln -sfn $profile/lib/systemd/system/nix-daemon.socket /etc/systemd/system/sockets.target.wants/nix-daemon.socket
systemctl daemon-reload
systemctl restart nix-daemon.socket
systemctl restart nix-daemon.service
NIX_REMOTE=daemon nix-store --add /etc/hostname
";

#[test]
fn another_installer_was_run_again() -> Result<()> {
    let (machine, world) = ready(Layout::Official, "again")?;
    let before = manifest(&machine)?;
    migrate(&machine)?;
    machine.root(INSTALLED_AGAIN)?;
    rolled_back_with_notes(&machine, &["/etc/nix/nix.conf was edited since", "stays as it is"])?;
    let conf = machine.root("cat /etc/nix/nix.conf")?;
    ensure!(conf == "\nbuild-users-group = nixbld", "nix.conf is not theirs: {conf:?}");
    // The build user that was missing has its line at the end now.
    let named = ["/etc/nix/nix.conf", "/etc/passwd", "/etc/shadow", "/nix/store/", "db: "];
    assert_differs_only_in(&before, &machine, &named, "after an installer's run and a rollback")?;
    world.assert_live(&machine)
}
