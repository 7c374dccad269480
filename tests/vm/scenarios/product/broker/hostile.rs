//! What comes over the broker's socket when the daemon's account is somebody else's.

use super::{nothing_left, with_broker};
use crate::harness::exec::Outcome;
use crate::harness::machine::Machine;
use anyhow::{Result, ensure};
use nix_build_broker::wire::{self, Request};

#[test]
fn requests() -> Result<()> {
    let machine = with_broker("broker-hostile")?;
    wrong_peers(&machine)?;
    let tools = machine.user(
        "bob",
        "nix-instantiate --eval -E '\"${/opt/nix-unroot-tests/tools}\"' --read-write-mode | tr -d '\"'",
    )?;
    let world = World { busybox: format!("{tools}/busybox"), out: format!("{}-out", &tools[..43]), tools };
    // The table starts from what works.
    let good = send(&machine, &world.request())?;
    ensure!(good.stdout.contains("L hello\n") && good.stdout.contains("E 0"), "{good}");
    let made = machine.root(&format!("stat -c %U {0}; rm {0}", world.out))?;
    ensure!(made == "nix", "the output belongs to {made}");
    table(&machine, &world)?;
    malformed(&machine)?;
    swapped(&machine, &world)?;
    nothing_left(&machine)
}

struct World {
    tools: String,
    busybox: String,
    out: String,
}

impl World {
    fn request(&self) -> Request<'_> {
        Request {
            builder: self.busybox.as_bytes(),
            args: vec![b"sh", b"-c", b"echo hello; echo x >$out"],
            env: vec![(b"out", self.out.as_bytes())],
            store: b"/nix/store",
            build_dir: b"/build",
            inputs: vec![self.tools.as_bytes()],
            outputs: vec![self.out.as_bytes()],
            files: vec![(b"file", b"x")],
        }
    }
}

fn send(machine: &Machine, request: &Request<'_>) -> Result<Outcome> {
    let mut bytes = Vec::new();
    wire::send(&mut bytes, request)?;
    send_bytes(machine, bytes, "")
}

fn send_bytes(machine: &Machine, bytes: Vec<u8>, more: &str) -> Result<Outcome> {
    let script = format!(
        "exec setpriv --reuid=nix --regid=nix --clear-groups perl /opt/nix-unroot-tests/send.pl {more}"
    );
    machine.shell("root", &script)?.input(bytes).run()
}

/// Others cannot open the socket; root can, and is not served.
fn wrong_peers(machine: &Machine) -> Result<()> {
    let alice = machine.try_user("alice", "perl /opt/nix-unroot-tests/send.pl </dev/null")?;
    ensure!(alice.stderr.contains("Permission denied"), "alice may connect: {alice}");
    let root = machine.try_root("perl /opt/nix-unroot-tests/send.pl </dev/null")?;
    ensure!(root.stdout.is_empty(), "root is answered: {root}");
    machine.root("journalctl -u broker.service | grep -q 'refused a connection of uid 0'")?;
    Ok(())
}

/// None of these runs a program, and each is told why.
fn table(machine: &Machine, world: &World) -> Result<()> {
    let missing = format!("{}-missing", &world.tools[..43]);
    let climbing = format!("{}/../../../usr/bin/id", world.tools);
    let inside = format!("{}/busybox", world.tools);
    type Change<'a> = Box<dyn Fn(&mut Request<'a>) + 'a>;
    let rows: Vec<(&str, Change<'_>, &str)> = vec![
        ("a program of the machine", Box::new(|r| r.builder = b"/usr/bin/id"), "no program of an input"),
        ("a path that climbs", Box::new(|r| r.builder = climbing.as_bytes()), "no program of an input"),
        ("an input that is no store path", Box::new(|r| r.inputs.push(b"/etc")), "input '/etc'"),
        ("an input inside of one", Box::new(|r| r.inputs.push(inside.as_bytes())), "input "),
        ("an input that is missing", Box::new(|r| r.inputs.push(missing.as_bytes())), "ENOENT"),
        ("an output in /etc", Box::new(|r| r.outputs.push(b"/etc/cron.d/x")), "output '/etc/cron.d/x'"),
        ("an input as output", Box::new(|r| r.outputs = vec![world.tools.as_bytes()]), "is an input"),
        (
            "a path that is there as output",
            Box::new(|r| {
                r.inputs.clear();
                r.builder = b"/bin/sh";
                r.outputs = vec![world.tools.as_bytes()];
            }),
            "already exists",
        ),
        ("a file elsewhere", Box::new(|r| r.files.push((b"../../../etc/x", b"x"))), "file '../../../etc/x'"),
        ("a file that is the directory", Box::new(|r| r.files.push((b".", b"x"))), "file '.'"),
        ("a variable without a name", Box::new(|r| r.env.push((b"", b"x"))), "variable"),
        ("another store", Box::new(|r| r.store = b"/tmp"), "the store is /nix/store"),
        ("no output", Box::new(|r| r.outputs.clear()), "1 to 32 outputs"),
    ];
    for (what, change, why) in rows {
        let mut request = world.request();
        change(&mut request);
        let outcome = send(machine, &request)?;
        ensure!(
            outcome.stdout.starts_with("R ")
                && outcome.stdout.contains(why)
                && !outcome.stdout.contains("hello"),
            "{what}: expected '{why}': {outcome}"
        );
    }
    let words = vec![vec![b'x'; 100_000]; 40];
    let mut long = world.request();
    long.args.extend(words.iter().map(Vec::as_slice));
    let outcome = send(machine, &long)?;
    ensure!(outcome.stdout.contains("E2BIG") && outcome.stdout.contains("E 1"), "too many words: {outcome}");
    ensure!(machine.try_root(&format!("ls {} /etc/cron.d/x /etc/x", world.out))?.stdout.is_empty());
    Ok(())
}

fn malformed(machine: &Machine) -> Result<()> {
    let head = |length: u32| [wire::MAGIC, &length.to_le_bytes()].concat();
    let ends = |bytes: Vec<u8>, why: &str| -> Result<()> {
        let outcome = send_bytes(machine, bytes, "end")?;
        ensure!(
            outcome.stdout.starts_with("R ") && outcome.stdout.contains(why),
            "expected '{why}': {outcome}"
        );
        Ok(())
    };
    ends(b"GET / HTTP/1.0\r\n\r\nand more of that".to_vec(), "not of this version")?;
    ends(head(u32::MAX), "too long")?;
    ends([head(8), vec![0xff; 8]].concat(), "cut short")?;
    ends(head(100), "cut short")?;
    ends(Vec::new(), "read a request")
}

/// An entry of the store that is swapped for a link, by the account that owns the store, shows a build nothing.
fn swapped(machine: &Machine, world: &World) -> Result<()> {
    let link = format!("{}-link", &world.tools[..43]);
    machine.root(&format!("ln -s /etc {link}; chown -h nix:nix {link}"))?;
    let mut request = world.request();
    request.inputs.push(link.as_bytes());
    let script = format!("{0} ls -l {link}; {0} cat {link}/hostname; {0} ls {link}/", world.busybox);
    request.args = vec![b"sh", b"-c", script.as_bytes()];
    let outcome = send(machine, &request)?;
    machine.root(&format!("rm {link}"))?;
    ensure!(outcome.stdout.contains("-> /etc") && outcome.stdout.contains("No such file"), "{outcome}");
    ensure!(!outcome.stdout.contains("shadow"), "a build sees /etc: {outcome}");
    Ok(())
}
