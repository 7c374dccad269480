//! Connections that are refused.

mod running;

use running::{Gate, conf, hear, scratch};
use std::path::Path;
use std::process::Command;

/// What one client hears, and the log.
fn connect(name: &str, conf: &Path, nix_config: Option<&str>) -> (String, String) {
    let gate = Gate::start(name, conf, &[], nix_config, "");
    let heard = hear(gate.connect());
    let (status, log) = gate.stop();
    assert_eq!(status.code(), Some(0), "the gate goes on, whatever came of a connection: {log}");
    (heard, log)
}

#[test]
fn a_client_that_may_not_connect_is_told() {
    let nobody = "trusted-users =\nallowed-users = nobody-at-all\n";
    for (text, nix_config) in [(nobody, None), ("trusted-users = *", Some(nobody))] {
        let (heard, log) = connect("nobody", &conf("nobody.conf", text), nix_config);
        assert!(heard.starts_with("oixd"), "{heard:?}");
        assert!(heard.contains("is not allowed to connect to the Nix daemon"), "{heard:?}");
        assert!(log.contains("refused connection from pid"), "{log}");
    }
}

#[test]
fn a_configuration_that_cannot_be_used_lets_nobody_in() {
    let missing = conf("missing.conf", "trusted-users = *\ninclude nowhere.conf");
    let bad = conf("bad.conf", "trusted-users = *\nallowed-users=*");
    for (file, said) in [(scratch(""), "directory"), (missing, "does not exist"), (bad, "line 2")] {
        let (heard, log) = connect("unusable", &file, None);
        assert!(heard.contains("could not be started"), "{heard:?}");
        assert!(!heard.contains(file.to_str().unwrap()), "the details are for the log");
        assert!(log.contains(said) && !log.contains("accepted"), "{log}");
    }
}

#[test]
fn the_configuration_counts_as_it_is_when_a_client_comes() {
    let file = conf("changing.conf", "allowed-users =\ntrusted-users =");
    let gate = Gate::start("changing", &file, &[], None, "");
    assert!(hear(gate.connect()).contains("is not allowed"));
    std::fs::write(&file, "nonsense").unwrap();
    assert!(hear(gate.connect()).contains("could not be started"));
    std::fs::write(&file, "allowed-users =\ntrusted-users =").unwrap();
    assert!(hear(gate.connect()).contains("is not allowed"));
    gate.stop();
}

#[test]
fn without_a_socket_it_says_what_to_do() {
    let arguments = ["--daemon", "/d", "--subids", "65536:65536", "--conf", "/nonexistent/nix.conf"];
    let output = Command::new(env!("CARGO_BIN_EXE_nix-daemon-gate"))
        .args(arguments)
        .env_remove("LISTEN_PID")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("start nix-daemon.socket"));
    let no_socket = "exec 3</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"";
    let output = Command::new("sh")
        .args(["-c", no_socket, "sh", env!("CARGO_BIN_EXE_nix-daemon-gate")])
        .args(arguments)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Accept=no"));
}

#[test]
fn wrong_usage_has_its_own_status() {
    let output = Command::new(env!("CARGO_BIN_EXE_nix-daemon-gate")).arg("--help").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: nix-daemon-gate --daemon"));
}
