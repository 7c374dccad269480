//! Builds that attack the machine they run on: the same list on the root-owned Nix and after its migration, side by side.

use super::{migrate, ready};
use crate::harness::layout::Layout;
use crate::harness::machine::{Machine, quote};
use crate::harness::nixcmd::nix_build;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;

/// A package like those of `world.nix` that also has more attributes.
const ATTACK_NIX: &str = r#"{ name, script, more ? "{ }" }:
let bb = "${/opt/nix-unroot-tests/tools}/busybox"; in
derivation ({ inherit name bb; system = builtins.currentSystem; input = builtins.toFile "input" "good"; builder = bb; args = [ "sh" "-c" script ]; }
  // import (builtins.toFile "more.nix" more))
"#;

/// How a build is made, with what `more` makes it so.
const KINDS: [(&str, &str); 3] = [
    ("sandboxed", "{ }"),
    (
        "fixed-output",
        r#"{ outputHashMode = "recursive"; outputHashAlgo = "sha256"; outputHash = "0000000000000000000000000000000000000000000000000000"; }"#,
    ),
    ("unsandboxed", "{ __noChroot = true; }"),
];

/// Attacks, as shell scripts that succeed when the attack does. `VICTIM` is a store path, `SECRET` is in the name of a file of another
/// build's temporary directory and in its environment.
const ATTACKS: &[(&str, &str)] = &[
    ("write to an input", "echo evil >>$input"),
    ("replace an input", "$bb mv $input $input.old"),
    ("make an input writable", "$bb chmod 0777 $input* || $bb chmod 0777 $bb || $bb chmod 0777 ${bb%/*}"),
    ("write to another path", "$bb test -e VICTIM && echo evil >>VICTIM"),
    ("remove another path", "$bb rm VICTIM"),
    ("write to the database", "echo evil >>/nix/var/nix/db/db.sqlite"),
    ("add a root", "$bb ln -s VICTIM /nix/var/nix/gcroots/evil-root"),
    ("change the rules", "echo 'trusted-users = *' >>/etc/nix/nix.conf"),
    ("signal a foreign process", "foreign '$bb kill -0 $p'"),
    ("read a foreign environment", "foreign '$bb cat /proc/$p/environ'"),
    ("read foreign memory", "foreign '$bb true </proc/$p/mem'"),
    ("see foreign files through a process", "foreign '$bb ls /proc/$p/root/'"),
    (
        "see the files of another build",
        "$bb find /tmp /build /nix/var/nix/builds $TMPDIR/.. -name SECRET 2>/dev/null | $bb grep -q .",
    ),
    (
        "talk to the daemon",
        "$bb test -S /nix/var/nix/daemon-socket/socket && /opt/attack/probe internal-handshake /nix/var/nix/daemon-socket/socket | $bb grep trusted",
    ),
    ("make a file setuid", "$bb cp $bb setuid && $bb chmod 4755 setuid && $bb test -u setuid"),
    ("become root", "$bb setuidgid 0:0 $bb true || $bb su root -c true </dev/null"),
    ("mount", "$bb mount -t tmpfs none /tmp"),
    ("remove the database", "$bb rm /nix/var/nix/db/db.sqlite"),
];

/// Before the attacks: a function that tries something with every process which is neither this build's nor a thread of it.
const PRELUDE: &str = r#"
foreign() {
  read self rest </proc/self/stat
  mine="$$ $self"
  for d in /proc/[0-9]*; do
    p=${d#/proc/}
    case " $mine " in *" $p "*) continue ;; esac
    $bb test -d $d || continue
    if eval "$1" >/dev/null 2>&1; then echo "  process $p: $($bb tr '\0' ' ' <$d/cmdline)" >&2; return 0; fi
  done
  return 1
}
"#;

#[test]
fn attacks_of_builds_are_denied() -> Result<()> {
    let (machine, _) = ready(Layout::Debian, "attacks")?;
    machine.write_file("/opt/attack/attack.nix", "0644", ATTACK_NIX)?;
    machine.root("install nix-unroot/nix-unroot /opt/attack/probe; chmod 755 /opt/attack")?;
    machine.root("echo 'sandbox = relaxed' >>/etc/nix/nix.conf; systemctl restart nix-daemon.service")?;
    let before = attack(&machine, "before")?;
    migrate(&machine)?;
    let after = attack(&machine, "after")?;
    println!("{:38} {:13} root-owned  migrated", "attack", "build");
    let mut granted = Vec::new();
    for ((name, kind), new) in &after {
        let old = before.get(&(name.clone(), kind.clone())).context("an attack was not made before")?;
        println!("{name:38} {kind:13} {old:11} {new}");
        if new != "denied" {
            granted.push(format!("{name} ({kind})"));
        }
    }
    ensure!(after.len() == ATTACKS.len() * KINDS.len(), "{} attacks", after.len());
    ensure!(granted.is_empty(), "succeeded after the migration: {granted:?}");
    assert_attacks_work(&machine)
}

/// A build of alice's that runs on, with its name to look for, and a store path of hers.
struct Victim {
    secret: String,
    path: String,
}

impl Victim {
    fn start(machine: &Machine, when: &str) -> Result<Victim> {
        let secret = format!("secret-{when}");
        let path = machine.user("alice", "echo victim >victim; nix-store --add victim")?;
        let script = format!("$bb touch /tmp/{secret} $TMPDIR/{secret}; $bb sleep 300");
        machine.background("alice", &nix_build(&secret, &script))?;
        machine.root(
            "for i in $(seq 100); do pgrep -f 'busybox sleep 300$' && exit 0; sleep 0.1; done; exit 1",
        )?;
        Ok(Victim { secret, path })
    }

    fn stop(self, machine: &Machine) -> Result<()> {
        machine.root(&format!(
            "pkill -f '[n]ix-build.*{}'; \
             for i in $(seq 100); do pgrep -f 'busybox sleep 300$' || exit 0; sleep 0.1; done; exit 1",
            self.secret
        ))?;
        Ok(())
    }

    /// A shell script that makes all attacks and says how they went.
    fn attacks(&self) -> String {
        let mut script = PRELUDE.to_owned();
        for (name, attack) in ATTACKS {
            let attack = attack.replace("VICTIM", &self.path).replace("SECRET", &self.secret);
            script += &format!(
                "if ( {attack} ) >/dev/null 2>&1; then echo 'attack:{name}:GRANTED'; else echo 'attack:{name}:denied'; fi\n"
            );
        }
        script
    }
}

/// What a script of [`Victim::attacks`] said, by attack.
fn outcomes(log: &str) -> BTreeMap<String, String> {
    let lines = log.lines().filter_map(|line| line.trim().strip_prefix("attack:"));
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, how)| (name.to_owned(), how.to_owned()))
        .collect()
}

/// Outcomes by attack and kind of build; afterwards nothing of the machine may have changed.
fn attack(machine: &Machine, when: &str) -> Result<BTreeMap<(String, String), String>> {
    let victim = Victim::start(machine, when)?;
    let state = format!(
        "sha256sum /etc/nix/nix.conf {path}; find /nix/store -perm /6000; ls -A /nix/var/nix/gcroots; stat -c '%a %n' {path} /nix/store",
        path = victim.path
    );
    let unharmed = machine.root(&state)?;
    let mut all = BTreeMap::new();
    for (kind, more) in KINDS {
        let mut script = victim.attacks();
        // Left behind on purpose, in a session of its own and deaf.
        script += "( trap '' HUP TERM INT; $bb setsid $bb sleep 4242 </dev/null >/dev/null 2>&1 & )\n";
        script += "$bb mkdir $out; $bb cp $bb $out/setuid; $bb chmod 6755 $out/setuid; true\n";
        let said = machine.try_user(
            "bob",
            &format!(
                "nix-build --no-out-link /opt/attack/attack.nix --argstr name {kind}-{when} --argstr script {} --argstr more {}",
                quote(&script),
                quote(more)
            ),
        )?;
        let made = outcomes(&(said.stdout.clone() + &said.stderr));
        ensure!(made.len() == ATTACKS.len(), "{kind} {when}: {said}");
        all.extend(made.into_iter().map(|(name, how)| ((name, kind.to_owned()), how)));
        let left = machine.try_root("pgrep -af 'sleep 4242'")?.stdout;
        ensure!(left.is_empty(), "{kind} {when}: a process outlived its build: {left}");
        let now = machine.root(&state)?;
        ensure!(now == unharmed, "{kind} {when}: harm was done:\n{unharmed}\n{now}");
    }
    machine.root("NIX_REMOTE=daemon nix-store --verify --check-contents")?;
    victim.stop(machine)?;
    Ok(all)
}

/// The same attacks by root, who may do all that: an attack that never succeeds would prove nothing. The machine is a wreck then.
fn assert_attacks_work(machine: &Machine) -> Result<()> {
    let victim = Victim::start(machine, "control")?;
    let attacks = quote(&victim.attacks());
    let said = machine.root(&format!(
        "export bb=$(ls -d /nix/store/*-tools | head -1)/busybox TMPDIR=/root input=$(nix-store --add /etc/hostname); $bb sh -c {attacks}"
    ))?;
    let failed: Vec<_> = outcomes(&said).into_iter().filter(|(_, how)| how != "GRANTED").collect();
    ensure!(failed.is_empty() && outcomes(&said).len() == ATTACKS.len(), "attacks that do not work: {said}");
    Ok(())
}
