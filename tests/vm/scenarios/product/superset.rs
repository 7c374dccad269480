//! Whatever Nix's own search finds, as root before the migration and as `nix store roots-daemon` after it, ours finds too: on one
//! machine, at one time, for each kind of root.

use super::{migrate, ready};
use crate::harness::layout::Layout;
use crate::harness::machine::Machine;
use crate::harness::stock;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;

const OURS: &str = "/nix/var/nix/gc-roots-socket/socket";

/// How to hold the store path PATH, a directory with the program `bin/sleep` and the file `with space`, in this way only.
struct Kind {
    name: &'static str,
    /// Who does it.
    user: &'static str,
    /// Run in the background.
    script: &'static str,
    /// Whether Nix's own search as root finds it, and whether its `roots-daemon` does.
    known: (bool, bool),
}

const BOTH: (bool, bool) = (true, true);
const LINK: (bool, bool) = (true, false);
const OURS_ALONE: (bool, bool) = (false, false);

#[rustfmt::skip] // One kind, one line or two: a table.
const KINDS: &[Kind] = &[
    Kind { name: "exe", user: "bob", known: BOTH, script: "exec env -i PATH/bin/sleep 1000000" },
    Kind { name: "cwd", user: "carol", known: BOTH, script: "cd PATH/bin; exec env -i -u PWD sleep 1000000" },
    Kind { name: "fd", user: "alice", known: BOTH, script: "exec env -i sleep 1000000 7<PATH/bin/sleep" },
    Kind { name: "maps", user: "bob", known: BOTH, script: "exec env -i /lib64/ld-linux-x86-64.so.2 PATH/bin/sleep 1000000" },
    Kind { name: "environ", user: "carol", known: BOTH, script: "exec env -i A=B:PATH/bin:C /bin/sleep 1000000" },
    Kind { name: "exe-deleted", user: "root", known: BOTH,
        script: "cd PATH/bin; cp -p sleep new; env -i PATH/bin/sleep 1000000 & sleep 0.3; mv new sleep" },
    Kind { name: "fd-with-space", user: "alice", known: BOTH, script: "exec env -i sleep 1000000 7<'PATH/with space'" },
    Kind { name: "maps-with-space", user: "bob", known: OURS_ALONE,
        script: "exec env -i /lib64/ld-linux-x86-64.so.2 'PATH/bin/sleep it' 1000000" },
    Kind { name: "direct", user: "root", known: LINK, script: "ln -s PATH /nix/var/nix/gcroots/direct" },
    Kind { name: "direct-below", user: "alice", known: LINK, script: "ln -s PATH/bin /nix/var/nix/gcroots/per-user/alice/below" },
    Kind { name: "file-by-name", user: "root", known: LINK, script: "touch /nix/var/nix/gcroots/$(basename PATH)" },
    Kind { name: "profile", user: "alice", known: LINK, script: "ln -s PATH /nix/var/nix/profiles/per-user/alice/own-1-link" },
    Kind { name: "indirect", user: "root", known: LINK,
        script: "mkdir -p /srv/a; ln -s PATH /srv/a/result; ln -s /srv/a/result /nix/var/nix/gcroots/auto/indirect" },
    Kind { name: "relative", user: "root", known: LINK,
        script: "mkdir -p /srv/b; ln -s PATH /srv/b/result; ln -s ../../../../../srv/b/result /nix/var/nix/gcroots/auto/relative" },
    Kind { name: "relative-twice", user: "root", known: OURS_ALONE,
        script: "mkdir -p /srv/e; ln -s ../../nix/store/$(basename PATH) /srv/e/result; ln -s ../../../../../srv/e/result /nix/var/nix/gcroots/auto/twice" },
    Kind { name: "behind-0700", user: "bob", known: LINK,
        script: "mkdir -m 0700 -p hidden/deep; nix-store --add-root hidden/deep/result --realise PATH" },
    Kind { name: "through-a-link", user: "root", known: LINK,
        script: "mkdir -p /srv/c; ln -s /srv/c /srv/d; ln -s PATH /srv/c/result; ln -s /srv/d/result /nix/var/nix/gcroots/auto/through" },
    Kind { name: "modprobe", user: "root", known: BOTH, script: "echo PATH/bin/sleep >/srv/kernel/modprobe" },
    Kind { name: "fbsplash", user: "root", known: BOTH, script: "echo PATH/bin/sleep >/srv/kernel/fbsplash" },
    Kind { name: "poweroff", user: "root", known: BOTH, script: "echo PATH/bin/sleep >/srv/kernel/poweroff_cmd" },
];

on_both_layouts!(whatever_nix_finds_is_found);

fn whatever_nix_finds_is_found(layout: Layout) -> Result<()> {
    let (machine, world) = ready(layout, "superset")?;
    world.hold(&machine)?;
    // The real settings are those of the host, and not every kernel has them.
    machine.root("mkdir -p /srv; cp -r /proc/sys/kernel /srv 2>/dev/null || true; mount --bind /srv/kernel /proc/sys/kernel")?;
    let planted = KINDS
        .iter()
        .map(|kind| plant(&machine, kind).with_context(|| format!("cannot plant the kind {}", kind.name)))
        .collect::<Result<Vec<_>>>()?;
    let before = paths(&machine.root("nix-store --gc --print-roots 2>/dev/null | sed 's/.* -> //'")?);
    migrate(&machine)?;
    stock::roots_daemon(&machine)?;
    machine.write_file("/opt/roots/ask.pl", "0644", include_str!("../../fixtures/roots/ask.pl"))?;
    let ask = |socket: &str| {
        Ok::<_, anyhow::Error>(paths(&machine.root(&format!("perl /opt/roots/ask.pl {socket}"))?))
    };
    let stock = ask(stock::SOCKET)?;
    let ours = ask(OURS)?;
    println!("{layout:?}: {:16} {:12} {:12} ours", "kind", "print-roots", "roots-daemon");
    for (kind, path) in KINDS.iter().zip(&planted) {
        let seen = [&before, &stock, &ours].map(|set| set.contains(path));
        println!("{layout:?}: {:16} {:12} {:12} {}", kind.name, seen[0], seen[1], seen[2]);
        ensure!(seen[2], "{} is a root by its {}, and ours does not say so", path, kind.name);
        ensure!(
            (seen[0], seen[1]) == kind.known,
            "{}: Nix's own search sees other things than it did",
            kind.name
        );
    }
    for (name, set) in [("nix-store --gc --print-roots", &before), ("nix store roots-daemon", &stock)] {
        let missing: Vec<_> = set.difference(&ours).collect();
        ensure!(missing.is_empty(), "{name} lists what ours does not: {missing:#?}");
        println!("{layout:?}: all {} paths of {name} are among our {}", set.len(), ours.len());
    }
    Ok(())
}

/// Makes a store path without a root, and then a root of this kind for it.
fn plant(machine: &Machine, kind: &Kind) -> Result<String> {
    let name = format!("planted-{}", kind.name);
    let path = machine.root(&format!(
        "d=$(mktemp -d)/{name}; mkdir -p $d/bin; cp /bin/sleep $d/bin; cp /bin/sleep \"$d/bin/sleep it\"
         echo {name} >\"$d/with space\"; nix-store --add $d; rm -r $d"
    ))?;
    let script = kind.script.replace("PATH", &path);
    if kind.script.contains("1000000") {
        machine.background(kind.user, &script)?;
        // The last process has become what it is to be. (No pattern here may match this shell's own words.)
        machine.root(&format!(
            "for i in $(seq 200); do pgrep -f '[e]nv -i|^(setsid )?bash.*[p]lanted-{}' >/dev/null || exit 0; sleep 0.05; done; exit 1",
            kind.name
        ))?;
    } else {
        machine.user(kind.user, &script)?;
    }
    Ok(path)
}

fn paths(text: &str) -> BTreeSet<String> {
    let base = |line: &str| {
        line.strip_prefix("/nix/store/").and_then(|rest| rest.split('/').next().map(String::from))
    };
    let end = "00000000000000000000000000000000-nix-root-scan";
    text.lines()
        .filter_map(base)
        .filter(|base| base != end)
        .map(|base| format!("/nix/store/{base}"))
        .collect()
}
