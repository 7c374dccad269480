//! The program itself, as far as it gets without privileges: everything up to the namespace.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What came of a connection.
struct Outcome {
    /// Exit status.
    status: Option<i32>,
    /// All that the client received.
    client: String,
    /// Standard error.
    log: String,
}

/// Connects a client that greets as Nix does, with this configuration file.
fn connect(conf: &PathBuf, nix_config: Option<&str>) -> Outcome {
    let (gate, mut client) = UnixStream::pair().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nix-daemon-gate"));
    command
        .args(["--daemon", "/nonexistent/nix-daemon", "--subids", "872415232:8388608", "--conf"])
        .arg(conf)
        .env_remove("NIX_CONFIG")
        .stdin(OwnedFd::from(gate.try_clone().unwrap()))
        .stdout(OwnedFd::from(gate))
        .stderr(Stdio::piped());
    if let Some(text) = nix_config {
        command.env("NIX_CONFIG", text);
    }
    let child = command.spawn().unwrap();
    // The command holds the gate's end too, and the client would never see the end of file.
    drop(command);
    client.write_all(b"cxin\0\0\0\0\x26\x01\0\0\0\0\0\0").unwrap();
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    drop(client);
    let output = child.wait_with_output().unwrap();
    Outcome {
        status: output.status.code(),
        client: String::from_utf8_lossy(&heard).into_owned(),
        log: String::from_utf8(output.stderr).unwrap(),
    }
}

fn conf(name: &str, text: &str) -> PathBuf {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_client_that_may_not_connect_is_told() {
    let nobody = "trusted-users =\nallowed-users = nobody-at-all\n";
    for (text, nix_config) in [(nobody, None), ("trusted-users = *", Some(nobody))] {
        let outcome = connect(&conf("nobody.conf", text), nix_config);
        assert_eq!(outcome.status, Some(0), "{}", outcome.log);
        assert!(outcome.client.starts_with("oixd"), "{:?}", outcome.client);
        assert!(
            outcome.client.contains("is not allowed to connect to the Nix daemon"),
            "{:?}",
            outcome.client
        );
        assert!(outcome.log.contains("refused connection from pid"), "{}", outcome.log);
    }
}

#[test]
fn a_configuration_that_cannot_be_used_lets_nobody_in() {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let missing = conf("missing.conf", "trusted-users = *\ninclude nowhere.conf");
    let bad = conf("bad.conf", "trusted-users = *\nallowed-users=*");
    for (file, said) in [(directory, "directory"), (missing, "does not exist"), (bad, "line 2")] {
        let outcome = connect(&file, None);
        assert_eq!(outcome.status, Some(1), "{}", outcome.log);
        assert!(outcome.client.contains("could not be started"), "{:?}", outcome.client);
        assert!(!outcome.client.contains(file.to_str().unwrap()), "the details are for the log");
        assert!(outcome.log.contains(said) && !outcome.log.contains("accepted"), "{}", outcome.log);
    }
}

#[test]
fn standard_input_has_to_be_a_connection() {
    let output = Command::new(env!("CARGO_BIN_EXE_nix-daemon-gate"))
        .args(["--daemon", "/d", "--subids", "65536:65536", "--conf", "/nonexistent/nix.conf"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ask who connected"));
}

#[test]
fn wrong_usage_has_its_own_status() {
    let output = Command::new(env!("CARGO_BIN_EXE_nix-daemon-gate")).arg("--help").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: nix-daemon-gate --daemon"));
}
