//! A journal without room, damaged, or of another version.

use super::interrupted::{killed_at, manifest};
use super::ready;
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::product;
use anyhow::{Result, ensure};

const STATE: &str = "/var/lib/nix-unroot";

/// Takes all room that is left on the file system of the state directory.
fn fill(machine: &Machine) -> Result<()> {
    machine.root(&format!("dd if=/dev/zero of={STATE}/filler bs=64k 2>/dev/null || true; sync"))?;
    let free = machine.root(&format!("stat -f -c %a {STATE}"))?;
    ensure!(free == "0", "{free} blocks are free still");
    Ok(())
}

/// The disk fills up in the middle of a run: what happens is recorded all the same, and everything comes back.
#[test]
fn a_run_whose_disk_fills_up_is_recorded_and_undone() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "journal-full")?;
    let before = manifest(&machine)?;
    machine.root(&format!("mkdir -p {STATE}; mount -t tmpfs -o size=100m none {STATE}"))?;
    for (instant, command) in [
        ("do:stop-root-daemon:recorded", "resume"),
        ("do:write-daemon-socket:recorded", "rollback"),
        ("undo:write-daemon-socket:recorded", "resume"),
    ] {
        if instant.starts_with("undo") {
            product::ok(&machine, "migrate --yes")?;
            killed_at(&machine, instant, "rollback --yes")?;
        } else {
            killed_at(&machine, instant, "migrate --yes")?;
        }
        fill(&machine)?;
        product::ok(&machine, &format!("{command} --yes"))?;
        if instant.starts_with("do") && command == "resume" {
            let history = product::ok(&machine, "history")?;
            ensure!(history.contains(", applied;"), "{instant}: {history}");
            // What recording gave back of the reserve, somebody took: going back needs room of its own.
            fill(&machine)?;
            product::ok(&machine, "rollback --yes")?;
        }
        let history = product::ok(&machine, "history")?;
        ensure!(history.lines().last().unwrap_or_default().contains(", undone;"), "{instant}: {history}");
        machine.root(&format!("rm {STATE}/filler"))?;
        before.assert_same(&manifest(&machine)?, &format!("after a full disk at {instant} and {command}"))?;
    }
    // So is whose version stays of what somebody changed, which is put aside there, too.
    product::ok(&machine, "migrate --yes")?;
    machine.root("echo '# theirs' >>/etc/systemd/system/nix-root-scan.timer")?;
    fill(&machine)?;
    product::ok(&machine, "rollback --yes --keep ours")?;
    machine.root(&format!("rm {STATE}/filler; grep -q theirs {STATE}/backups/run-*/put-aside-*"))?;
    before.assert_same(&manifest(&machine)?, "after a full disk and a choice")
}

/// Whichever part of it is damaged, the journal says so, and its copy leads back.
#[test]
fn a_damaged_journal_is_told_and_its_copy_leads_back() -> Result<()> {
    let (machine, _) = ready(Layout::Official, "journal-damaged")?;
    let before = manifest(&machine)?;
    for damage in [
        // The log alone would do: what it holds need not be in the database yet.
        "for file in journal.sqlite journal.sqlite-wal; do head -c 4000 /dev/urandom | dd of=$file conv=notrunc 2>/dev/null; done",
        "rm journal.sqlite*",
        "truncate -s 40000 journal.sqlite-wal",
    ] {
        killed_at(&machine, "do:enable-scan-socket:applied", "migrate --yes")?;
        machine.root(&format!("cd {STATE}; {damage}"))?;
        for command in ["resume", "rollback"] {
            let outcome = product::run(&machine, &format!("{command} --yes"))?;
            ensure!(
                outcome.status != 0 && outcome.stderr.contains("rollback --from-copy"),
                "{damage}: {outcome}"
            );
        }
        product::ok(&machine, "rollback --from-copy --yes")?;
        before.assert_same(&manifest(&machine)?, &format!("after {damage} and a rollback from the copy"))?;
    }
    Ok(())
}

/// A newer program's journal is not guessed at, by any command.
#[test]
fn a_journal_of_a_newer_version_is_refused() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "journal-newer")?;
    killed_at(&machine, "do:create-nix-user:applied", "migrate --yes")?;
    // Bytes 60 to 63 of an SQLite file are the user version (https://www.sqlite.org/fileformat.html, section 1.3); the log
    // has been folded in once no connection is open.
    let journal = format!("{STATE}/journal.sqlite");
    machine.try_root(&format!("{}/nix-unroot migrate --yes", product::DIR))?;
    machine.root(&format!(
        "printf '\\0\\0\\0\\7' | dd of={journal} bs=1 seek=60 conv=notrunc 2>/dev/null; rm -f {journal}-wal"
    ))?;
    let then = manifest(&machine)?;
    for command in ["resume --yes", "rollback --yes", "history", "migrate --yes"] {
        let outcome = product::run(&machine, command)?;
        let said = outcome.stdout.clone() + &outcome.stderr;
        ensure!(outcome.status != 0 && said.contains("version 7"), "{command}: {outcome}");
    }
    then.assert_same(&manifest(&machine)?, "after commands that met a newer journal")
}

/// A power cut rarely shows what is missing here: ext4 writes a file before it renames it. So the calls are read, one after the other.
#[test]
fn each_record_and_each_file_is_synced() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "journal-synced")?;
    for command in ["migrate", "rollback"] {
        machine.root(&format!(
            "strace -y -s 200 -e trace=write,fdatasync,fsync,rename -o /run/calls {}/nix-unroot {command} --yes >/dev/null 2>&1",
            product::DIR
        ))?;
        let log = machine.root("grep -E 'nix-unroot-new|run-1.record|^fsync|^fdatasync' /run/calls")?;
        let calls: Vec<_> = log.lines().collect();
        let (mut files, mut records) = (0, 0);
        for (call, next) in calls.iter().zip(calls.iter().skip(1).chain([&""])) {
            let is_followed_by = |sync: &str, what: &str| next.starts_with(sync) && next.contains(what);
            if call.starts_with("write(") && call.contains("run-1.record>") {
                ensure!(is_followed_by("fdatasync(", "run-1.record>"), "{call}\n{next}");
                records += 1;
            } else if call.starts_with("write(") && call.contains(".nix-unroot-new>") {
                ensure!(is_followed_by("fsync(", ".nix-unroot-new>"), "{call}\n{next}");
                files += 1;
            } else if call.starts_with("rename(") && call.contains(".nix-unroot-new\"") {
                let target = call.split('"').nth(3).unwrap_or_default();
                let directory = target.rsplit_once('/').map_or("", |(directory, _)| directory);
                ensure!(is_followed_by("fsync(", &format!("<{directory}>")), "{call}\n{next}");
            }
        }
        ensure!(files > 5 && records > 40, "{command}: {files} files, {records} records");
    }
    Ok(())
}

/// Nor does it show an owner that changed before the record of what it was is on the disk.
#[test]
fn owners_change_when_what_they_were_is_synced() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "journal-owners")?;
    machine.root("cd /nix/store; for n in 1 2 3; do echo $n >left$n; chown nixbld$n:nixbld left$n; done")?;
    // A file for each thread: a call is not cut in two by another thread's.
    machine.root(&format!(
        "strace -ff -y -s 200 -e trace=write,fdatasync,fsync,fchown,fchownat -o /run/calls {}/nix-unroot migrate --yes >/dev/null 2>&1",
        product::DIR
    ))?;
    let threads = machine.root("grep -lE '^write.*/owners-.*\"batch ' /run/calls.*")?;
    let (mut batches, mut left) = (0, 0);
    for thread in threads.lines() {
        let log = machine.root(&format!("grep -E '/owners-|^fchown' {thread}"))?;
        let mut is_synced = true;
        for call in log.lines() {
            if call.starts_with("write(") {
                ensure!(is_synced, "two batches and no sync: {call}");
                is_synced = false;
                batches += 1;
            } else if call.starts_with("fdatasync(") || call.starts_with("fsync(") {
                is_synced = true;
            } else {
                ensure!(is_synced, "a batch that was not synced, and {call}");
                left += usize::from(call.contains("</nix/store/left"));
            }
        }
    }
    ensure!(batches > 0 && left == 3, "{batches} batches, {left} of the three files:\n{threads}");
    Ok(())
}
