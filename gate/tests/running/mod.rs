//! A gate that runs, as far as it gets without privileges: everything up to the namespace.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// The program with a socket that it was passed as systemd does it.
pub struct Gate {
    socket: PathBuf,
    child: Child,
}

impl Gate {
    /// `name` is the test's, `shell` runs first in the same process.
    pub fn start(name: &str, conf: &Path, more: &[&str], nix_config: Option<&str>, shell: &str) -> Self {
        let socket = scratch(&format!("{name}.socket"));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let script = format!("exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; {shell} exec \"$@\"");
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_nix-daemon-gate")])
            .args(["--daemon", "/nonexistent/nix-daemon", "--subids", "872415232:8388608", "--conf"])
            .arg(conf)
            .args(more)
            .env_remove("NIX_CONFIG")
            .stdin(OwnedFd::from(listener))
            .stderr(Stdio::piped());
        if let Some(text) = nix_config {
            command.env("NIX_CONFIG", text);
        }
        let child = command.spawn().unwrap();
        Self { socket, child }
    }

    /// A client that greets as Nix does.
    pub fn connect(&self) -> UnixStream {
        let mut client = UnixStream::connect(&self.socket).unwrap();
        client.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        client.write_all(b"cxin\0\0\0\0\x26\x01\0\0\0\0\0\0").unwrap();
        client
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end: how it did, and its log.
    pub fn stop(mut self) -> (ExitStatus, String) {
        assert!(Command::new("kill").arg(self.pid().to_string()).status().unwrap().success());
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap(), log)
    }
}

/// All that a client hears until the gate hangs up.
pub fn hear(mut client: UnixStream) -> String {
    let mut heard = Vec::new();
    client.read_to_end(&mut heard).unwrap();
    String::from_utf8_lossy(&heard).into_owned()
}

/// A path for a test's own file.
pub fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// A configuration file.
pub fn conf(name: &str, text: &str) -> PathBuf {
    let file = scratch(name);
    std::fs::write(&file, text).unwrap();
    file
}
