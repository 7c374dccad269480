//! A hostile owner of the store: what it plants below `/nix`, and what it exchanges while root walks there, changes nothing outside,
//! and makes nothing of root's hang or crash.

use super::target::subuids;
use super::{migrate, migrated, ready};
use crate::harness::layout::Layout;
use crate::harness::machine::{Machine, quote};
use crate::harness::manifest::Manifest;
use crate::harness::product;
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// How many entries are planted unless `NIX_UNROOT_HOSTILE_ENTRIES` says otherwise.
const ENTRIES: usize = 50_000;

/// Plants below the directory that it is given: 4,000 levels, entries without end, names that are no text, links, FIFOs and sockets
/// with telling names; says whether it could make a device.
const PLANT: &str = r#"use Socket; my ($dir, $count) = @ARGV; chdir $dir or die "$dir: $!";
mkdir $_ for ('deep', 'many', 'odd'); mkdir "many/$_" for 0..99;
for my $n (1..$count) { open my $f, '>', 'many/' . $n % 100 . "/entry-$n" or die $!; }
chdir 'odd'; for my $name ("new\nline", "\xff\xfe", "\e[2Jclear", ' ', '-rf', "a'b\"c\$(touch /pwned)", 'x' x 255) {
  mkdir "dir $name" if length $name < 250; symlink '/etc/shadow', $name; }
system 'mkfifo', $_ for 'fifo', 'default.fifo'; symlink '/', 'root'; symlink '.', 'loop'; symlink 'b', 'a'; symlink 'a', 'b';
socket my $s, PF_UNIX, SOCK_STREAM, 0; bind $s, sockaddr_un('socket') or die $!;
print system('mknod device c 1 3 2>/dev/null') ? "no device\n" : "device\n";
chdir '../deep'; for (1..4000) { mkdir 'level-of-many' or die $!; chdir 'level-of-many' or die $!; }
open my $f, '>', 'bottom';
"#;

/// Exchanges a directory full of files with links to a victim, and names of files with each other, without end; writes down how often.
/// Works by path from elsewhere unless it is told to stand in the directory.
const SWAP: &str = r#"my ($dir, $log, $inside) = @ARGV; chdir($inside ? $dir : '/') or die;
my ($swap, $whole, $aside) = map "$dir/$_", 'swap', 'whole', 'aside'; mkdir $swap; mkdir "$swap/d$_" for 0..9;
for my $d (0..9) { for (0..19) { open my $f, '>', "$swap/d$d/f$_"; } symlink '/srv/victim', "$swap/l$d"; }
symlink '/srv/victim', $whole; my $n = 0;
while (1) { for my $d (0..9) {
  rename "$swap/d$d", "$swap/t$d"; rename "$swap/l$d", "$swap/d$d"; rename "$swap/t$d", "$swap/l$d";
  rename $swap, $aside; rename $whole, $swap; rename $swap, $whole; rename $aside, $swap; $n += 7; }
  if ($n % 700 == 0) { open my $f, '>', $log; print $f "$n\n"; } }
"#;

fn as_user(machine: &Machine, user: &str, script: &str) -> Result<String> {
    machine.root(&format!(
        "setpriv --reuid={user} --regid=$(id -g {user}) --clear-groups sh -c {}",
        quote(script)
    ))
}

/// Runs it with a limit far above what it takes; it must end by itself, in a way that it knows.
fn ends(machine: &Machine, arguments: &str, statuses: &[i32]) -> Result<String> {
    let program = format!("{}/nix-unroot {arguments}", product::DIR);
    let outcome = machine.shell("root", &program)?.timeout(Duration::from_secs(300)).run()?;
    ensure!(statuses.contains(&outcome.status), "{outcome}");
    let said = outcome.stdout + &outcome.stderr;
    ensure!(!said.contains("panicked") && !said.contains('\u{1b}'), "{arguments}: {said}");
    Ok(said)
}

/// What must not change: a directory outside with files of everybody concerned, and the tools.
fn set_up(machine: &Machine) -> Result<()> {
    machine.write_file("/opt/plant.pl", "0644", PLANT)?;
    machine.write_file("/opt/swap.pl", "0644", SWAP)?;
    machine.root("mkdir -p /srv/victim; for n in $(seq 0 19); do echo $n >/srv/victim/f$n; done; chmod 0755 /srv /srv/victim")?;
    Ok(())
}

fn entries() -> usize {
    std::env::var("NIX_UNROOT_HOSTILE_ENTRIES").ok().and_then(|text| text.parse().ok()).unwrap_or(ENTRIES)
}

/// Plants in each place that belongs to `nix`, as `nix`.
fn plant(machine: &Machine) -> Result<()> {
    let places = ["/nix/store", "/nix/var/nix/gcroots", "/nix/var/nix/profiles", "/nix/var/nix/builds"];
    for place in places {
        let count = entries() / places.len();
        let made =
            as_user(machine, "nix", &format!("mkdir {place}/evil; perl /opt/plant.pl {place}/evil {count}"))?;
        ensure!(made == "no device", "nix made a device: {made}");
    }
    // As with fs.protected_hardlinks=0, a setting of the whole host: root makes the links that nix could make then.
    machine.root(
        "for f in /etc/shadow /usr/bin/passwd /srv/victim/f1; do ln $f /nix/var/nix/profiles/evil/link-$(basename $f); ln $f /nix/store/evil/link-$(basename $f); done",
    )?;
    Ok(())
}

/// Begins to exchange directories: three processes of `nix`, and one of alice's, in what is hers below `/nix`. Nobody ends hers, so
/// she goes on during a whole rollback.
fn race(machine: &Machine) -> Result<()> {
    let names = ["/nix/var/nix/profiles/evil", "/nix/store/evil", "/nix/var/nix/gcroots/evil"];
    for (number, place) in names.iter().enumerate() {
        machine.background("root", &format!("exec setpriv --reuid=nix --regid=nix --clear-groups perl /opt/swap.pl {place} /tmp/swaps-{number} inside"))?;
    }
    machine.background(
        "alice",
        "exec perl /opt/swap.pl /nix/var/nix/profiles/per-user/alice /tmp/swaps-alice inside",
    )?;
    machine
        .root("for i in $(seq 300); do [ -s /tmp/swaps-alice ] && [ -s /tmp/swaps-2 ] && exit 0; sleep 0.1; done; exit 1")
        .map(drop)
}

/// Says how often they did, and fails when that is next to nothing.
fn told(machine: &Machine) -> Result<()> {
    let swaps = machine.root("cat /tmp/swaps-*")?;
    let total: u64 = swaps.lines().filter_map(|line| line.parse::<u64>().ok()).sum();
    println!("{} entries planted, {total} renames by four racing processes", entries());
    ensure!(total > 1000 && swaps.lines().count() == 4, "the race was none: {swaps}");
    Ok(())
}

/// A container of the machine's, where nix's number is somebody else, who has a file open that belongs to that number; and one of a user's
/// own, where it is not.
fn containers(machine: &Machine, subuid: u32) -> Result<()> {
    let enter = |group: &str| {
        format!("mkdir -p /sys/fs/cgroup/{group}; echo $$ >/sys/fs/cgroup/{group}/cgroup.procs")
    };
    machine.root(
        "cd /run; mkdir -p container/usr; cd container; ln -s usr/bin usr/lib usr/lib64 .; mount --bind /usr usr; echo >theirs; chown nix theirs",
    )?;
    let machines = enter("system.slice/docker-4711.scope");
    machine.background(
        "root",
        &format!("{machines}; exec 3>>/run/container/theirs; exec chroot --userspec=$(id -u nix) /run/container sleep 4713"),
    )?;
    let users = enter("user.slice/user-1000.slice/user@1000.service/user.slice/libpod-1.scope");
    machine.background(
        "root",
        &format!("{users}; exec setpriv --reuid={subuid} --regid={subuid} --clear-groups sleep 4714"),
    )?;
    machine.root("for s in 4713 4714; do while ! pgrep -fx \"sleep $s\"; do sleep 0.1; done; done").map(drop)
}

#[test]
fn what_nix_plants_and_exchanges_harms_nobody() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "hostile")?;
    set_up(&machine)?;
    let before = Manifest::outside_nix(&machine)?;
    migrate(&machine)?;
    // Files of the same uid outside, too, which no walk may take for its own.
    machine.root("chown nix /srv/victim/f1[0-9]")?;

    plant(&machine)?;
    let outside = Manifest::outside_nix(&machine)?;
    race(&machine)?;

    for (arguments, statuses) in [
        ("inspect --json", &[0][..]),
        ("migrate --dry-run", &[0, 3]),
        ("plan", &[0, 1, 3]),
        ("verify", &[0, 1]),
        ("doctor", &[0, 1]),
        ("doctor --repair --dry-run --keep ours", &[0, 1, 3]),
        ("audit", &[0, 1, 3]),
        ("uninstall --dry-run", &[0, 3]),
        ("resume --yes", &[0]),
        ("history", &[0]),
        ("roots", &[0, 1]),
    ] {
        ends(&machine, arguments, statuses)?;
        outside.assert_same(
            &Manifest::outside_nix(&machine)?,
            &format!("after {arguments} beside an attacker"),
        )?;
    }
    // The databases's owner puts a FIFO in its place, where somebody may wait for ever.
    as_user(&machine, "nix", "cd /nix/var/nix/db; mv db.sqlite kept; mkfifo db.sqlite")?;
    ends(&machine, "inspect", &[0])?;
    ends(&machine, "verify", &[0, 1])?;
    as_user(&machine, "nix", "cd /nix/var/nix/db; rm db.sqlite; mv kept db.sqlite")?;
    // And a link, and a file that is longer than any memory, in the place of directories that a rollback removes with all that is in them.
    as_user(
        &machine,
        "nix",
        "cd /nix/var/nix; mv builds old-builds; ln -s /srv/victim builds; mv gc-socket old-gc-socket; truncate -s 8T gc-socket",
    )?;
    let said = ends(&machine, "doctor", &[1])?;
    ensure!(said.contains("a file of 8796093022208 bytes"), "{said}");
    ends(&machine, "uninstall --dry-run", &[0, 3])?;

    // Whom it handed an open file to, could write to it when it is root's; and in a namespace of its own it has another uid.
    let subuid = subuids(&machine)?.start + 5;
    machine.background(
        "root",
        "exec 3>>/nix/store/evil/held; exec setpriv --reuid=alice --regid=alice --clear-groups sleep 4711",
    )?;
    machine.background(
        "root",
        &format!("exec setpriv --reuid={subuid} --regid={subuid} --clear-groups sleep 4712"),
    )?;
    containers(&machine, subuid)?;
    machine.root("chown nix /nix/store/evil/held; while ! pgrep -fx 'sleep 4712'; do sleep 0.1; done")?;
    let held = ends(&machine, "rollback --yes", &[4])?;
    ensure!(held.contains("(sleep 4711) can still write to /nix/store/evil/held"), "{held}");
    ensure!(held.contains("nix-unroot rollback"), "it says not how to go on: {held}");
    machine.root(
        "pkill -fx 'sleep 4711'; not pgrep -fx 'sleep 4712'; not pgrep -fx 'sleep 4714'; pgrep -fx 'sleep 4713'",
    )?;

    let said = ends(&machine, "rollback --yes", &[0])? + &held;
    told(&machine)?;
    ensure!(said.contains("ending "), "the processes of nix were left running: {said}");
    machine.root("pkill -fx 'sleep 4713'; while pgrep -fx 'sleep 4713'; do sleep 0.1; done; umount /run/container/usr; rm -r /run/container")?;
    machine.root(
        "pkill -u alice; rm /nix/store/evil/link-* /nix/var/nix/profiles/evil/link-*; chown root /srv/victim/*; sleep 1; ! pgrep -x perl",
    )?;
    before.assert_same(&Manifest::outside_nix(&machine)?, "after a rollback beside an attacker")?;
    let left = machine
        .root("find /nix -xdev -nouser 2>/dev/null | head -3; stat -c %U:%G /nix/store /nix/var/nix/db")?;
    ensure!(left == "root:nixbld\nroot:root", "left with the uid of nix: {left}");
    Ok(())
}

/// A directory of the daemon's that is gone is made anew; between the look and that, it puts a link in its place.
#[test]
fn a_link_that_it_plants_in_time_is_not_followed() -> Result<()> {
    let (machine, _) = migrated(Layout::Debian, "hostile-repair")?;
    let builds = "/nix/var/nix/builds";
    as_user(&machine, "nix", &format!("mv {builds} {builds}-gone"))?;
    let state = "stat -c '%a %u %g %i' /etc/shadow";
    let shadow = machine.root(state)?;
    // It sees the instant by the log of instants, and has a second for the link.
    machine.root("touch /run/instants; chmod 644 /run/instants")?;
    machine.background(
        "root",
        &format!("exec setpriv --reuid=nix --regid=nix --clear-groups sh -c 'until grep -q directories-.*:recorded /run/instants; do sleep 0.01; done; ln -s /etc/shadow {builds}; touch /tmp/planted'"),
    )?;
    let repair = format!(
        "NIX_UNROOT_CHECKPOINT_LOG=/run/instants strace -f -o /dev/null -e trace=mkdir,mkdirat -e inject=mkdir,mkdirat:delay_enter=1s {}/nix-unroot doctor --repair --yes",
        product::DIR
    );
    let outcome = machine.shell("root", &repair)?.timeout(Duration::from_secs(300)).run()?;
    machine.root("test -e /tmp/planted").with_context(|| format!("nothing was planted: {outcome}"))?;
    ensure!(outcome.status == 1 && outcome.stderr.contains(builds), "{outcome}");
    let now = machine.root(state)?;
    ensure!(now == shadow, "/etc/shadow was {shadow}, is {now}");
    // It was undone, and with it went the link. Nobody plants any more.
    ends(&machine, "doctor --repair --yes", &[0])?;
    ends(&machine, "verify", &[0]).map(drop)
}

/// A constraint that takes its time for each of many rows, which nobody looked at when they came. A signal ends the rollback that
/// checks it; and a check that is ended, as by the limit of its time, holds nobody up.
#[test]
fn a_database_that_is_checked_without_end_does_not_stay_with_nix() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "hostile-database")?;
    let before = Manifest::outside_nix(&machine)?;
    migrate(&machine)?;
    machine.root("systemctl stop nix-daemon.socket nix-daemon.service")?;
    let endless = "PRAGMA ignore_check_constraints = on; \
        CREATE TABLE slow (row CHECK (length(hex(zeroblob(50000000)) || row) > 0)); \
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) INSERT INTO slow SELECT i FROM n;";
    as_user(&machine, "nix", &format!("sqlite3 /nix/var/nix/db/db.sqlite {}", quote(endless)))?;

    let rollback = |end: &str| -> Result<(String, String)> {
        let program = format!("{}/nix-unroot rollback --yes", product::DIR);
        machine.background(
            "root",
            &format!("rm -f /run/ended; {program} >/run/said 2>&1; echo $? >/run/ended"),
        )?;
        machine.root(&format!(
            "for i in $(seq 600); do child=$(pgrep -u nix -f internal-check-database) && break; sleep 0.1; done
             sleep 3; kill -0 $child && {end}
             for i in $(seq 600); do [ -s /run/ended ] && break; sleep 0.1; done; ! pgrep -u nix -f internal-check-database"
        ))?;
        Ok((machine.root("cat /run/ended")?, machine.root("cat /run/said")?))
    };
    let (status, said) = rollback("pkill -TERM -o -x nix-unroot")?;
    ensure!(status == "4" && said.contains("stopped by a signal"), "exit status {status}: {said}");
    // Meanwhile, after the look for writers, somebody opens a file that anybody may write to. It is root's then.
    as_user(&machine, "nix", "touch /nix/store/held; chmod 666 /nix/store/held")?;
    let holder = "setsid setpriv --reuid=alice --regid=alice --clear-groups sh -c 'exec 3>>/nix/store/held; exec sleep 4715' </dev/null >/dev/null 2>&1 &";
    let (status, said) = rollback(&format!("{{ {holder} sleep 1; kill -KILL $child; }}"))?;
    ensure!(said.contains("the copy from before the migration is"), "exit status {status}: {said}");
    let held = "(sleep 4715) can still write to /nix/store/held";
    ensure!(status == "4" && said.contains(held), "exit status {status}: {said}");
    machine.root("stat -c %U /nix/store/held | grep -x root; pkill -fx 'sleep 4715'")?;
    ends(&machine, "rollback --yes", &[0])?;
    let owner = machine.root("stat -c %U /nix/var/nix/db/db.sqlite")?;
    ensure!(owner == "root", "the database is {owner}'s");
    before.assert_same(&Manifest::outside_nix(&machine)?, "after a rollback with an endless database")
}

/// A removal deletes what they exchange. What is not Nix's is as it was before there was a Nix.
#[test]
fn a_removal_beside_them_removes_nothing_else() -> Result<()> {
    let base = Layout::Official.base()?;
    let mut machine = Machine::copy_of(&base.join("tree"), "hostile-removal")?;
    drop(base);
    machine.boot()?;
    machine.root("useradd -m -s /bin/bash alice")?;
    machine.user("alice", "true")?;
    product::install(&machine)?;
    set_up(&machine)?;
    let never = Manifest::outside_nix(&machine)?;
    Layout::Official.install(&machine)?;
    machine.root("install -d -o alice -g alice /nix/var/nix/{gcroots,profiles}/per-user/alice")?;
    machine.user("alice", "nix-store --add /etc/hostname")?;
    migrate(&machine)?;
    plant(&machine)?;
    race(&machine)?;
    // Hers is no process that this tool ends, and it would go on to make what is being deleted.
    let refused = ends(&machine, "uninstall --yes --purge-homes", &[3])?;
    ensure!(refused.contains("swap.pl /nix/var/nix/profiles/per-user/alice"), "{refused}");
    ensure!(!refused.contains("swap.pl /nix/store"), "those of nix end with the rollback: {refused}");
    told(&machine)?;
    // Nor one that it can see there: she works by path, from elsewhere, and makes anew what is gone.
    machine.root("pkill -u alice; while pgrep -u alice; do sleep 0.1; done")?;
    machine.background(
        "alice",
        "while :; do timeout -s KILL 0.3 perl /opt/swap.pl /nix/var/nix/profiles/per-user/alice /tmp/swaps-alice; done",
    )?;
    ends(&machine, "uninstall --yes --purge-homes", &[0, 4])?;
    machine.root("pkill -u alice || true; while pgrep -u alice; do sleep 0.1; done")?;
    ends(&machine, "resume --yes", &[0])?;
    machine.root("test ! -e /nix; not pgrep -x perl; rm -rf /home/alice/.cache /home/alice/.local")?;
    never.assert_same(&Manifest::outside_nix(&machine)?, "after a removal beside an attacker")
}

/// Before a migration it is a build user, in the store's group, who may have left something there.
#[test]
fn what_a_build_user_left_is_no_way_out_either() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "hostile-builder")?;
    set_up(&machine)?;
    let plant = format!(
        "mkdir /nix/store/evil; chmod 777 /nix/store/evil; perl /opt/plant.pl /nix/store/evil {}",
        entries() / 10
    );
    as_user(&machine, "nixbld1", &plant)?;
    // Not shadow: account tools replace that file, and only its old text would be left below the name.
    machine.root("ln /usr/bin/passwd /nix/store/evil/link")?;
    let before = Manifest::outside_nix(&machine)?;
    // At work: it is waited for, and not for ever.
    machine.background("root", "exec setpriv --reuid=nixbld1 --regid=nixbld --clear-groups perl /opt/swap.pl /nix/store/evil /tmp/swaps")?;
    machine.root("for i in $(seq 300); do [ -s /tmp/swaps ] && exit 0; sleep 0.1; done; exit 1")?;
    let said = ends(&machine, "migrate --yes --drain-timeout 2", &[1, 3])?;
    let named = ["still run after 2 s", "builds-running-too-long"];
    ensure!(named.iter().any(|name| said.contains(name)), "{said}");
    before.assert_same(&Manifest::outside_nix(&machine)?, "after a migration beside a hostile build user")?;
    machine.root("pkill -u nixbld1")?;
    // A name of a file outside is not re-owned, and is named.
    let said = ends(&machine, "migrate --yes", &[1])?;
    ensure!(said.contains("have names outside") && said.contains("evil/link"), "{said}");
    before.assert_same(&Manifest::outside_nix(&machine)?, "after a migration that met a foreign link")?;
    machine.root("rm /nix/store/evil/link")?;
    let before = Manifest::outside_nix(&machine)?;
    ends(&machine, "migrate --yes", &[0])?;
    ends(&machine, "rollback --yes", &[0])?;
    before.assert_same(&Manifest::outside_nix(&machine)?, "after a migration and a rollback")
}
