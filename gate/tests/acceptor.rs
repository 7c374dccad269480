//! The process that waits for clients: limits, shortages, its end.

mod running;

use running::{Gate, conf, hear, scratch};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// A configuration that connections wait for.
struct SlowConf {
    file: PathBuf,
    keep: File,
}

impl SlowConf {
    fn new(name: &str) -> Self {
        let file = scratch(name);
        let _ = std::fs::remove_file(&file);
        assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
        // Who opens it finds a writer, and waits for what it has to say.
        let keep = File::options().read(true).write(true).open(&file).unwrap();
        Self { file, keep }
    }

    /// Everybody is allowed, those who wait and those who come.
    fn release(self) {
        let plain = self.file.with_extension("plain");
        std::fs::write(&plain, "").unwrap();
        std::fs::rename(plain, &self.file).unwrap();
        drop(self.keep);
    }
}

#[test]
fn limits_hold_for_what_is_open_at_a_time() {
    for (limits, said) in [
        (["--max-per-user", "2", "--max-connections", "9"], "at most 2 are allowed"),
        (["--max-per-user", "9", "--max-connections", "2"], "all users together has too many"),
    ] {
        let conf = SlowConf::new("limits.conf");
        let gate = Gate::start("limits", &conf.file, &limits, None, "");
        let held = [gate.connect(), gate.connect()];
        for _ in 0..100 {
            let heard = hear(gate.connect());
            assert!(heard.starts_with("oixd") && heard.contains(said), "{heard:?}");
        }
        // The two that waited get as far as this account can, and make room.
        conf.release();
        for client in held {
            assert!(hear(client).contains("could not be started"));
        }
        until(|| hear(gate.connect()).contains("could not be started").then_some(()));
        let (_, log) = gate.stop();
        let refusals = log.lines().filter(|line| line.contains("refused a connection of uid")).count();
        assert!((1..100).contains(&refusals), "a flood of refusals does not flood the log: {log}");
    }
}

#[test]
fn clients_wait_while_there_are_no_files_to_spare() {
    let conf = conf("files.conf", "trusted-users =\nallowed-users =");
    // Its log, the socket and the signals take all of them.
    let gate = Gate::start("files", &conf, &[], None, "ulimit -Sn 5;");
    let clients = [gate.connect(), gate.connect()];
    std::thread::sleep(Duration::from_millis(350));
    let cpu = std::fs::read_to_string(format!("/proc/{}/stat", gate.pid())).unwrap();
    let ticks: Vec<u64> =
        cpu.rsplit(')').next().unwrap().split(' ').skip(12).take(2).map(|n| n.parse().unwrap()).collect();
    assert!(ticks.iter().sum::<u64>() < 20, "it does not spin: {cpu}");
    let raised =
        Command::new("prlimit").args(["--nofile=64", "--pid", &gate.pid().to_string()]).status().unwrap();
    assert!(raised.success());
    for client in clients {
        assert!(hear(client).contains("is not allowed"));
    }
    let (status, log) = gate.stop();
    assert!(status.success() && log.contains("cannot accept a connection: Too many open files"), "{log}");
}

#[test]
fn its_end_is_the_end_of_all_connections() {
    let conf = SlowConf::new("end.conf");
    let gate = Gate::start("end", &conf.file, &[], None, "");
    let clients: Vec<_> = (0..5).map(|_| gate.connect()).collect();
    let children = format!("/proc/{0}/task/{0}/children", gate.pid());
    until(|| {
        let children = std::fs::read_to_string(&children).unwrap();
        (children.split_whitespace().count() == 5).then_some(())
    });
    let started = Instant::now();
    let (status, _) = gate.stop();
    assert!(status.success() && started.elapsed() < Duration::from_secs(9), "asked, not waited for");
    for mut client in clients {
        // What it said was not read, so this may be an error.
        assert!(!matches!(client.read(&mut [0]), Ok(1..)), "hung up");
    }
}

/// Polls until there is something, for a while.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "it does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}
