//! The handshake of another user, made by a child process that has become that user.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::CheckError;
use crate::daemon::{Connection, DaemonError, Trust};
use crate::system::text::printable;
use crate::system::watched::{Limits, Watched};
use crate::system::{command, own_program};

/// The hidden subcommand of our own binary that calls [`handshake_child_main`] with the rest of its arguments.
pub const HANDSHAKE_COMMAND: &str = "internal-handshake";

/// How long the child may take: longer than the handshake itself may.
const PATIENCE: Duration = Duration::from_secs(90);
/// The most that it has to say, in bytes.
const LONGEST: usize = 8 << 10;

/// What the child found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The daemon talked to it.
    Greeted(Trust),
    /// The daemon refused it, in its own words or by hanging up.
    Refused(String),
    /// It did not get that far.
    Unreached(String),
}

/// What the child does: greets the daemon on the socket in `args` and prints one line. Returns its exit status.
pub fn handshake_child_main(args: &[OsString]) -> u8 {
    let [socket] = args else { return 2 };
    let line = match Connection::open(Path::new(socket)) {
        Ok(connection) => match connection.trust() {
            Trust::Trusted => "trusted".to_owned(),
            Trust::NotTrusted => "not-trusted".to_owned(),
            Trust::Unknown => "unknown".to_owned(),
        },
        Err(error @ (DaemonError::Refused { .. } | DaemonError::Closed { .. })) => format!("refused {error}"),
        Err(error) => format!("unreached {error}"),
    };
    println!("{}", line.replace('\n', " "));
    0
}

/// Greets the daemon as `uid` and `gid`, in no other group.
pub(super) fn greet_as(uid: u32, gid: u32, socket: &Path) -> Result<Answer, CheckError> {
    let limits = Limits { output: LONGEST, ..Limits::of_time(PATIENCE) };
    let mut child = command::own_child(HANDSHAKE_COMMAND, uid, gid);
    child.arg(socket).stderr(Stdio::null());
    let (output, _) = Watched::start(&mut child, Vec::new(), limits.output)
        .and_then(|child| child.end(limits))
        .map_err(CheckError::io("cannot run as another user", &own_program::path()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    parse(&said).ok_or_else(|| {
        CheckError::Other(format!(
            "the child that greets the daemon as uid {uid} ended with {} and said {said:?}",
            output.status
        ))
    })
}

fn parse(said: &str) -> Option<Answer> {
    let (word, rest) = said.trim_end().split_once(' ').unwrap_or((said.trim_end(), ""));
    Some(match word {
        "trusted" => Answer::Greeted(Trust::Trusted),
        "not-trusted" => Answer::Greeted(Trust::NotTrusted),
        "unknown" => Answer::Greeted(Trust::Unknown),
        "refused" => Answer::Refused(printable(rest)),
        "unreached" => Answer::Unreached(printable(rest)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_child_says_is_read_back() {
        assert_eq!(parse("trusted\n"), Some(Answer::Greeted(Trust::Trusted)));
        assert_eq!(parse("not-trusted\n"), Some(Answer::Greeted(Trust::NotTrusted)));
        assert_eq!(parse("refused by \x1b[1mit\n"), Some(Answer::Refused("by it".to_owned())));
        assert_eq!(parse("trustedx\n"), None);
        assert_eq!(parse(""), None);
    }
}
