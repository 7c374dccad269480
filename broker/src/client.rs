//! What the daemon runs in place of a builder, under its own uid.
//!
//! Its standard error is the terminal from which the daemon reads the build's log. The first line of it says whether the builder
//! could be started at all (`processSandboxSetupMessages` in Nix's `derivation-builder.cc`), and the daemon does nothing else until
//! it has read that. So it is said at once, before anything that may take time; every later trouble is a line of the log and a failed build.

use crate::document::Document;
use crate::wire::{self, Answer};
use crate::{Failure, Result, while_doing};
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

/// "The build environment is ready".
const READY: &[u8] = b"\x02\n";

/// Has the broker run the build; the builder's exit status.
#[must_use]
pub fn build(socket: &Path, document: &Path) -> ExitCode {
    say(READY);
    match run(socket, document) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            crate::log::line(failure);
            ExitCode::FAILURE
        }
    }
}

/// The safe mode: there are no builds.
#[must_use]
pub fn refuse() -> ExitCode {
    say(READY);
    crate::log::line(
        "nothing is built on this machine: its Nix runs without root, and a build under the uid that owns the store could rewrite \
         it. Use a substituter or a remote builder, or have the administrator set the build broker up",
    );
    ExitCode::FAILURE
}

/// To the daemon. One that does not listen will end this process.
fn say(text: &[u8]) {
    let _ = std::io::stderr().write_all(text);
}

fn run(socket: &Path, document: &Path) -> Result<u8> {
    let text = std::fs::read(document).map_err(while_doing(format!("read {}", document.display())))?;
    let document = Document::parse(&text)?;
    let files = files(Path::new(&document.prepared))?;
    let broker = UnixStream::connect(socket).map_err(|error| {
        Failure::new(format!(
            "cannot reach the build broker at {}: {error}; is it running?",
            socket.display()
        ))
    })?;
    // One that refuses may do so before it has read everything, and says why.
    let sent = wire::send(&broker, &document.request(&files));
    loop {
        match wire::hear(&broker) {
            Ok(Answer::Log(text)) => say(&text),
            Ok(Answer::Ended(status)) => return Ok(status),
            Ok(Answer::Refused(reason)) => return Err(Failure::new(reason)),
            Err(error) => {
                sent?;
                return Err(Failure::new(format!(
                    "the build broker went away ({error}); its log may say why"
                )));
            }
        }
    }
}

/// What Nix prepared for the builder: attributes in files, closures. There are no directories among them.
fn files(dir: &Path) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let cannot = || while_doing::<std::io::Error>(format!("read the files in {}", dir.display()));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(cannot())? {
        let entry = entry.map_err(cannot())?;
        let text = std::fs::read(entry.path()).map_err(cannot())?;
        files.push((entry.file_name().into_vec(), text));
    }
    Ok(files)
}
