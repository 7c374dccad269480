//! The runs that are killed: a machine each, and what `nix-unroot` is told to do there. Together they do every step of every plan
//! (see `coverage.rs`).

use super::super::install::{build_as_alice, from_archive, machine_of};
use super::super::single_user::alices;
use super::super::{migrated, ready};
use crate::harness::image;
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::manifest::Manifest;
use crate::harness::{nixcmd, product};
use anyhow::Result;

/// A machine, and a run on it.
#[derive(Debug)]
pub struct Journey {
    pub name: &'static str,
    /// A booted machine before the run.
    make: fn() -> Result<Machine>,
    /// What `nix-unroot` is called with.
    pub arguments: fn(&Machine) -> Result<String>,
    /// Whether there is no way back from its end.
    pub is_final: bool,
    /// Whether paths are registered on the way or before it, which get another time each time.
    pub registers: bool,
    /// Whether systemd starts the daemon when somebody connects.
    serves: bool,
}

/// What the names of Debian's units begin with that stay.
const UNITS: &str = "nix|dbus|basic|sysinit|multi-user|graphical|default|sockets|timers|paths|slices|local-fs|remote-fs|swap|shutdown|umount|final|\
                     exit|poweroff|-[.]slice|system[.]|user|tmp[.]mount|systemd-(journald|logind|tmpfiles-setup|user-sessions|poweroff)";

const MIGRATE: Journey = Journey {
    name: "migrate, Debian's packages",
    make: || with_builds_leftovers(Layout::Debian, "kill"),
    arguments: |_| Ok("migrate --yes".to_owned()),
    is_final: false,
    registers: false,
    serves: true,
};
const UNINSTALL: Journey = Journey {
    name: "uninstall, Debian's packages",
    arguments: |_| Ok("uninstall --yes --purge-homes".to_owned()),
    is_final: true,
    ..MIGRATE
};

pub const JOURNEYS: [Journey; 11] = [
    MIGRATE,
    Journey {
        name: "migrate, official installer",
        make: || with_builds_leftovers(Layout::Official, "kill"),
        ..MIGRATE
    },
    Journey {
        name: "migrate, with all that can be asked for",
        make: with_everything,
        arguments: |_| {
            Ok("migrate --yes --share-conf --share-netrc --share-keys --share-certificates --share-ssh --share-aws"
                .to_owned())
        },
        ..MIGRATE
    },
    Journey {
        name: "migrate, with a newer Nix",
        make: with_old_nix,
        arguments: |machine| Ok(format!("migrate --yes {}", from_archive(machine)?)),
        registers: true,
        ..MIGRATE
    },
    Journey {
        name: "install",
        make: || machine_of(image::without_nix()?, "kill-install"),
        arguments: |machine| {
            Ok(format!("install --yes --extra-conf 'sandbox = relaxed' {}", from_archive(machine)?))
        },
        registers: true,
        ..MIGRATE
    },
    Journey {
        name: "audit --fix",
        make: with_ways_to_root,
        arguments: |_| Ok("audit --fix --yes".to_owned()),
        registers: true,
        ..MIGRATE
    },
    UNINSTALL,
    Journey {
        name: "uninstall, official installer",
        make: || Ok(ready(Layout::Official, "kill")?.0),
        ..UNINSTALL
    },
    Journey {
        name: "migrate, a person's store",
        make: || Ok(alices("kill-person")?.0),
        registers: true,
        ..MIGRATE
    },
    Journey {
        name: "doctor --repair",
        make: with_drifts,
        arguments: |_| Ok("doctor --repair --yes --keep ours".to_owned()),
        ..MIGRATE
    },
    Journey {
        name: "install, without an init system",
        make: in_a_container,
        arguments: |machine| Ok(format!("install --yes --init none {}", from_archive(machine)?)),
        registers: true,
        serves: false,
        ..MIGRATE
    },
];

impl Journey {
    /// A machine before the run that was switched off: the others are copies of it. Its systemd has no units but those of Nix and of what
    /// runs, and generates none: reading them anew at each of a run's ten reloads would take more time than the run.
    pub fn template(&self) -> Result<Machine> {
        let mut machine = (self.make)()?;
        machine.root(&format!(
            "rm -f /usr/lib/systemd/system-generators/*; cd /usr/lib/systemd/system
             ls | grep -Ev '^({UNITS})' | xargs rm -rf; systemctl daemon-reload"
        ))?;
        machine.stop()?;
        Ok(machine)
    }

    /// Everything that makes up the machine, before the run or after a rollback.
    pub fn before(&self, machine: &Machine) -> Result<Manifest> {
        if self.serves && machine.tree().join("nix/var/nix/daemon-socket").exists() {
            // The daemon runs, which a first client starts; the scanner ends by itself when nobody asks.
            nixcmd::trust(machine, "alice")?;
            machine.try_root("systemctl stop nix-root-scan.service")?;
        }
        Ok(Manifest::take(machine)?.without("/var/lib/nix-root-scan/remembered", "sha256"))
    }

    /// The same at the end of the run.
    pub fn after(&self, machine: &Machine) -> Result<Manifest> {
        // dpkg's copy of what it knew before it was last called: once more than without a kill.
        let all = self.before(machine)?.without("/var/lib/dpkg/status-old", "sha256");
        Ok(if self.registers { all.without_rows() } else { all })
    }
}

/// What builds that failed left in the store: owners and a mode that are recorded one by one before they change.
fn with_builds_leftovers(layout: Layout, test: &str) -> Result<Machine> {
    let (machine, _) = ready(layout, test)?;
    machine.root(
        "cd /nix/store; mkdir left; for n in 1 2 3; do echo $n >left/$n; chown nixbld$n:nixbld left/$n; done; chmod 4755 left/3",
    )?;
    Ok(machine)
}

/// Every kind of file that the daemon may be given access to, an installer's leftovers, builds without a sandbox, and a lack of every
/// directory that a migration makes where there is none. The signing key is that of a seed of zeros: machines are alike.
fn with_everything() -> Result<Machine> {
    let machine = with_builds_leftovers(Layout::Official, "kill-all")?;
    machine.root(
        r#"cd /etc/nix; printf 'test:%s' AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA7aie8zrakLWKjqNAqbw1zZTIVdx3iQ6Y6wEihi1naKQ== >sign.key
        touch builder.key tls.key; echo 'machine cache.example password x' >netrc; echo 'fallback = true' >tokens.conf
        echo 'ssh://list.example riscv64-linux /etc/nix/builder.key' >machines
        chmod 0600 netrc tls.key tokens.conf machines; chmod 0400 sign.key builder.key
        printf '%s\n' '!include tokens.conf' 'secret-key-files = /etc/nix/sign.key' 'sandbox = relaxed' \
            'trusted-substituters = https://cache.example?tls-private-key=/etc/nix/tls.key' >>nix.conf
        mkdir -p /root/.ssh /root/.aws; echo id >/root/.ssh/id_ed25519; echo aws >/root/.aws/credentials
        chmod 0600 /root/.ssh/* /root/.aws/*
        echo '{"planner": {"settings": {}}}' >/nix/receipt.json; install /bin/true /nix/nix-installer
        rm -rf /usr/local/libexec /nix/var/log /etc/systemd/system/sockets.target.wants /etc/systemd/system/timers.target.wants
        chmod g+w /nix/var; systemctl restart nix-daemon"#,
    )?;
    Ok(machine)
}

/// A used one: a root, and a collection.
fn with_old_nix() -> Result<Machine> {
    let machine = machine_of(image::with_old_nix()?, "kill-old")?;
    let (kept, _) = build_as_alice(&machine, "before")?;
    machine.user("alice", &format!("nix-store --realise {kept} --add-root ~/result; nix-store --gc"))?;
    Ok(machine)
}

/// A machine on which the program works in a container without systemd (as in `without_init.rs`), which its first call makes: it is a
/// script there, with the program in a directory beside it. Whoever kills the script kills the program.
fn in_a_container() -> Result<Machine> {
    let machine = machine_of(image::without_nix()?, "kill-no-init")?;
    let directory = product::DIR;
    let script = format!(
        "#!/bin/sh
if ! [ -e /run/init ]; then
    setsid unshare --pid --mount --fork --mount-proc sh -c 'mount -t tmpfs none /run/systemd; while :; do sleep 1; done' \\
        </dev/null >/dev/null 2>&1 &
    until P=$(pgrep -P \"$(pgrep -xo unshare)\" -x sh) && ! [ -e /proc/$P/root/run/systemd/system ]; do sleep 0.1; done
    echo $P >/run/init
fi
exec nsenter --target $(cat /run/init) --mount --pid -- setpriv --pdeathsig KILL {directory}/inside/nix-unroot \"$@\"
"
    );
    machine.root(&format!("cd {directory}; mkdir inside; mv nix-* inside"))?;
    machine.write_file(&format!("{directory}/nix-unroot"), "0755", script)?;
    Ok(machine)
}

/// A migrated machine of which something is not as it was left, so that gate and scanner stop for the repair; part of our block of `nix.conf`
/// is still there, which a rollback must not take for one that the repair wrote.
fn with_drifts() -> Result<Machine> {
    let (machine, _) = migrated(Layout::Official, "kill-repair")?;
    machine.root("chown root:nixbld /nix/store; rm /etc/tmpfiles.d/nix-daemon.conf; sed -i '/^sandbox-fallback = false$/d' /etc/nix/nix.conf; echo '# mine' >>/etc/systemd/system/nix-root-scan.timer; systemctl daemon-reload")?;
    Ok(machine)
}

/// A migrated machine on which every kind of thing is left that `audit --fix` closes.
fn with_ways_to_root() -> Result<Machine> {
    let (machine, _) = migrated(Layout::Official, "kill-audit")?;
    machine.root(
        "echo '[Unit]' >harmless; F=$(nix-store --add harmless); rm harmless
         ln -s $F /etc/systemd/system/planted.service; ln -s $F /etc/tmpfiles.d/planted.conf
         mkdir -p /etc/environment.d; echo 'PATH=/nix/var/nix/profiles/default/bin:$PATH' >/etc/environment.d/nix.conf
         rm -rf /root/.config; systemctl daemon-reload",
    )?;
    Ok(machine)
}
