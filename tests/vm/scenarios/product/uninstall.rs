//! Nix goes, whoever brought it, and nothing else does.

use super::interrupted::{killed_at, manifest};
use super::{migrate, migrated, ready};
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::manifest::Manifest;
use crate::harness::product;
use anyhow::{Context, Result, ensure};

on_both_layouts!(a_used_nix_is_removed, a_migrated_nix_is_removed, until_the_last_step_all_comes_back);

/// What an installer adds is what goes: a machine before it, and after installing, using and removing, is the same.
#[test]
fn installed_used_and_removed_is_as_never_installed() -> Result<()> {
    let base = Layout::Official.base()?;
    let mut machine = Machine::copy_of(&base.join("tree"), "uninstall-exact")?;
    machine.boot()?;
    machine.root("useradd -m -s /bin/bash alice; install -d /etc/zsh; echo '# mine' >/etc/zsh/zshrc")?;
    // A login makes files of its own; they are not Nix's.
    machine.user("alice", "true")?;
    product::install(&machine)?;
    let before = Manifest::take(&machine)?;
    Layout::Official.install(&machine)?;
    machine
        .user("alice", "nix-store --add /etc/hostname; nix-env --switch-profile ~/.local/state/nix/mine")?;
    let whole = product::run(&machine, "uninstall --yes --purge-homes")?;
    ensure!(whole.status == 0, "{whole}");
    let left = machine.root("find /home/alice/.local /home/alice/.cache -mindepth 1 2>/dev/null || true")?;
    machine.root("rm -rf /home/alice/.local /home/alice/.cache")?;
    ensure!(!left.contains("nix"), "left in a home:\n{left}");
    before.assert_same(&Manifest::take(&machine)?, "after an installation and its removal")?;
    machine.reboot()?;
    before.assert_same(&Manifest::take(&machine)?, "after a reboot")?;
    let again = product::run(&machine, "uninstall --yes")?.exits(0)?;
    ensure!(again.stderr.contains("nothing to do"), "{again}");
    Ok(())
}

/// What was installed by a migration goes with it, and what goes on with the removal must not.
#[test]
fn a_program_that_removes_itself_can_go_on() -> Result<()> {
    let (machine, _) = migrated(Layout::Official, "uninstall-itself")?;
    let (installed, kept) = ("/usr/local/sbin/nix-unroot", "/var/lib/nix-unroot/nix-unroot");
    // Of a removal that was given up before the program was replaced by another.
    machine.root(&format!("echo older >{kept}"))?;
    // Where /usr/local/sbin is a link.
    machine.root("mv /usr/local/sbin /usr/local/real; ln -s real /usr/local/sbin")?;
    let killed = format!("NIX_UNROOT_CHECKPOINT=run:undone {installed} uninstall --yes --purge-homes");
    machine.try_root(&killed)?.exits(137)?;
    machine.root(&format!("test ! -e {installed}; {kept} history | grep 'resume goes on'"))?;
    // Somebody is in the store again: what to do then is told for this program, and what was asked for is not forgotten.
    machine.background("root", "cd /nix/store; exec sleep 4711")?;
    machine.root("while ! pgrep -fx 'sleep 4711'; do sleep 0.1; done")?;
    let refused = machine.try_root(&format!("{kept} resume --yes"))?.exits(3)?;
    let told = refused.stderr.contains("then run nix-unroot resume")
        && refused.stderr.contains(&format!("nix-unroot is kept as {kept}"));
    ensure!(told, "{refused}");
    machine.root("pkill -fx 'sleep 4711'; while pgrep -fx 'sleep 4711'; do sleep 0.1; done")?;
    // The last run fails, and is undone: it can be gone on with.
    machine.root("mount --bind /etc/systemd /etc/systemd; mount -o remount,bind,ro /etc/systemd")?;
    let failed = machine.try_root(&format!("{kept} resume --yes"))?.exits(1)?;
    machine.root("umount /etc/systemd")?;
    ensure!(failed.stderr.contains("nix-unroot resume goes on with that"), "{failed}");
    machine.root(&format!(
        "{kept} resume --yes; test ! -e {kept}; test ! -e /var/lib/nix-unroot/removal.json"
    ))?;
    let homes = machine.root("ls -d /home/*/.nix-profile /home/*/.local/state/nix 2>/dev/null || true")?;
    ensure!(homes.is_empty(), "left in homes: {homes}");
    assert_removed(&machine, Layout::Official)
}

/// dpkg comes to its end also when the run that started it does not: what it says goes to no pipe that would end it.
#[test]
fn packages_go_to_the_end_by_themselves() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "uninstall-alone")?;
    machine.root(
        "printf '#!/bin/sh\nset -e\nsleep 5\necho words; echo words >&2\n' >/var/lib/dpkg/info/nix-bin.prerm; chmod 755 /var/lib/dpkg/info/nix-bin.prerm",
    )?;
    machine.background("root", &format!("exec {}/nix-unroot uninstall --yes", product::DIR))?;
    machine.root("until pgrep -f '[n]ix-bin.prerm'; do sleep 0.1; done; pkill -KILL -x nix-unroot")?;
    let early = product::run(&machine, "resume --yes")?.exits(3)?;
    ensure!(early.stderr.contains("dpkg"), "{early}");
    machine.root("while pgrep -x dpkg; do sleep 0.1; done")?;
    machine.root("not dpkg-query -W nix-bin; dpkg --audit")?;
    product::ok(&machine, "resume --yes")?;
    assert_removed(&machine, Layout::Debian)
}

/// Who goes back to what there was before the migration does not want it removed any more.
#[test]
fn a_rollback_forgets_a_removal() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "uninstall-forgotten")?;
    killed_at(&machine, "undo:reown-store:recorded", "uninstall --yes --keep-store")?;
    // Nobody said yes.
    product::run(&machine, "rollback")?.exits(2)?;
    let history = product::ok(&machine, "history")?;
    ensure!(history.contains("(nix-unroot uninstall --keep-store) and has not ended"), "{history}");
    product::ok(&machine, "rollback --yes")?;
    let again = product::run(&machine, "resume --yes")?.exits(0)?;
    ensure!(again.stderr.contains("nothing to do"), "{again}");
    machine.root("test -d /nix/store").map(drop)
}

/// Nor who migrates again, also when that dies before it could say so.
#[test]
fn another_run_overtakes_a_removal() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "uninstall-overtaken")?;
    killed_at(&machine, "run:undone", "uninstall --yes")?;
    killed_at(&machine, "run:recorded", "migrate --yes")?;
    let history = product::ok(&machine, "history")?;
    ensure!(!history.contains("a removal of Nix"), "{history}");
    product::ok(&machine, "resume --yes")?;
    super::target::assert_migrated(&machine)
}

fn a_used_nix_is_removed(layout: Layout) -> Result<()> {
    let (machine, world) = ready(layout, "uninstall")?;
    let shown = product::ok(&machine, "uninstall --dry-run")?;
    ensure!(shown.contains("delete-store") && shown.contains("cannot be undone"), "{shown}");
    ensure!(shown.contains("--purge-homes removes it"), "what stays in homes is not told: {shown}");

    world.hold(&machine)?;
    let before = manifest(&machine)?;
    let refused = product::run(&machine, "uninstall --yes")?.exits(3)?;
    ensure!(refused.stdout.contains("sleep 1000000") && refused.stdout.contains("/nix/store/"), "{refused}");
    before.assert_same(&manifest(&machine)?, "after a refused removal")?;
    machine.root("pkill -f 'sleep 1000000'")?;

    product::ok(&machine, "uninstall --yes")?;
    assert_removed(&machine, layout)?;
    let homes =
        machine.root("ls -d /home/alice/.nix-profile /home/alice/.local/state/nix 2>/dev/null || true")?;
    ensure!(!homes.is_empty(), "somebody's home was touched without --purge-homes");
    product::ok(&machine, "uninstall --yes --purge-homes")?;
    let left =
        machine.root("ls -d /home/alice/.nix-profile /home/alice/.local/state/nix 2>/dev/null || true")?;
    ensure!(left.is_empty(), "left when only homes were: {left}");
    let history = product::ok(&machine, "history")?;
    ensure!(history.contains("final"), "{history}");
    let back = product::run(&machine, "rollback --yes")?.exits(0)?;
    ensure!(back.stderr.contains("nothing to do"), "{back}");
    Ok(())
}

fn a_migrated_nix_is_removed(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "uninstall-new")?;
    migrate(&machine)?;
    let ids = machine.root("id -u nix; id -u nix-root-scan")?;
    // It dies while it rolls the migration back, between that and the removal, when the removal has just begun, and when all is done.
    killed_at(&machine, "undo:reown-store:recorded", "uninstall --yes --purge-homes")?;
    // Not in other words.
    let other = product::run(&machine, "history")?.exits(0)?;
    ensure!(other.stdout.contains("gives it up, and undoes run 1"), "{other}");
    for instant in ["run:undone", "run:begin:1:record-copied", "run:recorded", "run:applied"] {
        killed_at(&machine, instant, "resume --yes")?;
        if instant == "run:recorded" {
            let other = product::run(&machine, "uninstall --yes --keep-store")?.exits(3)?;
            ensure!(
                other.stderr.contains("was interrupted: nix-unroot resume or nix-unroot rollback ends it"),
                "{other}"
            );
        }
    }
    let history = product::ok(&machine, "history")?;
    ensure!(!history.contains("has not ended"), "{history}");
    let kept = machine.root("cat /var/lib/nix-unroot/removal.json")?;
    let done = product::run(&machine, "resume --yes")?.exits(0)?;
    ensure!(done.stderr.contains("nothing to do"), "{done}");
    machine.root("! ls /var/lib/nix-unroot/removal.json")?;
    // Or with the command itself, given again.
    machine.write_file("/var/lib/nix-unroot/removal.json", "0600", kept)?;
    let done = product::run(&machine, "uninstall --yes")?.exits(0)?;
    ensure!(done.stderr.contains("nothing to do"), "{done}");
    machine.root("! ls /var/lib/nix-unroot/removal.json")?;
    assert_removed(&machine, layout)?;
    for id in ids.lines() {
        let left = machine.root(&format!("find / -xdev -uid {id} | head -3"))?;
        ensure!(left.is_empty(), "left of uid {id}:\n{left}");
    }
    let accounts = machine
        .root("grep -E '^nix(-root-scan)?:' /etc/passwd /etc/group /etc/subuid /etc/subgid || true")?;
    ensure!(accounts.is_empty(), "{accounts}");
    let homes = machine.root("ls -d /home/*/.nix-profile /home/*/.local/state/nix 2>/dev/null || true")?;
    ensure!(homes.is_empty(), "left in homes: {homes}");
    Ok(())
}

fn until_the_last_step_all_comes_back(layout: Layout) -> Result<()> {
    let (machine, _) = ready(layout, "uninstall-back")?;
    let before = manifest(&machine)?;
    // The first step that cannot be undone is another one where packages are.
    let last = match layout {
        Layout::Debian => "purge-packages-1",
        Layout::Official => "purge-home-1",
    };
    for checkpoint in [
        "do:stop-units:applied".to_owned(),
        "do:remove-file-1:recorded".to_owned(),
        format!("do:{last}:captured"),
    ] {
        if layout == Layout::Debian && checkpoint.contains("remove-file") {
            continue;
        }
        killed_at(&machine, &checkpoint, "uninstall --yes")?;
        product::ok(&machine, "rollback --yes")?;
        before.assert_same(&manifest(&machine)?, &format!("after a kill at {checkpoint} and a rollback"))?;
    }
    product::ok(&machine, "uninstall --yes --keep-store").context("without the store")?;
    machine.root("test -d /nix/store")?;
    for checkpoint in ["do:delete-store-1:recorded", "do:delete-store-1:applied"] {
        killed_at(
            &machine,
            checkpoint,
            if checkpoint.ends_with("recorded") { "uninstall --yes" } else { "resume --yes" },
        )?;
        let refused = product::run(&machine, "rollback --yes")?.exits(4)?;
        ensure!(refused.stderr.contains("cannot be undone any more"), "{refused}");
    }
    product::ok(&machine, "resume --yes")?;
    assert_removed(&machine, layout)
}

/// Nothing of Nix is left but what is people's own.
fn assert_removed(machine: &Machine, layout: Layout) -> Result<()> {
    let left = machine.root(
        "ls -d /nix /etc/nix /etc/systemd/system/nix* /etc/tmpfiles.d/nix* /etc/profile.d/nix* /root/.nix* \
             /usr/lib/systemd/system/nix-daemon* /etc/*.backup-before-nix 2>/dev/null || true
         grep -E '^_?nixbld|^nix-users' /etc/passwd /etc/shadow /etc/group /etc/gshadow || true
         grep -l '# End Nix' /etc/bash.bashrc /etc/zsh/zshrc /etc/profile.d/* 2>/dev/null || true
         find /etc /usr/local -xdev -lname '/nix/*' | head
         systemctl list-unit-files --no-legend 'nix-*' || true; systemctl list-units --all --no-legend --plain 'nix-*'
         pgrep -l nix-daemon || true",
    )?;
    ensure!(left.is_empty(), "{layout:?}: left behind:\n{left}");
    if layout == Layout::Debian {
        let packages = machine.root(
            "dpkg-query -W -f '${Package} ${Status}\\n' nix-bin nix-setup-systemd 2>/dev/null || true",
        )?;
        ensure!(!packages.contains("installed") || packages.contains("not-installed"), "{packages}");
    }
    let healthy = machine.try_root("systemctl --failed --no-legend --plain | grep nix")?;
    ensure!(healthy.stdout.is_empty(), "{healthy}");
    Ok(())
}
