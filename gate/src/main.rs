//! The program: see the library's documentation and `README.md`.

use nix_daemon_gate::args::{Args, USAGE};
use nix_daemon_gate::decide::{Verdict, decide};
use nix_daemon_gate::namespace::{self, maps::MapWriter};
use nix_daemon_gate::neighbours::connections_of_the_same_user;
use nix_daemon_gate::{Failure, Result, accounts, caps, conf, exec, peer, refuse};
use std::convert::Infallible;
use std::process::ExitCode;

fn main() -> ExitCode {
    // From here on no capability is in effect, whatever comes.
    if let Err(failure) = caps::lower() {
        return fail(&failure);
    }
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(failure) => {
            eprintln!("nix-daemon-gate: {failure}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match serve(&args) {
        Ok(Served::Refused) => ExitCode::SUCCESS,
        Err(failure) => {
            refuse::tell("the Nix daemon could not be started; the system's journal says why");
            fail(&failure)
        }
    }
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("nix-daemon-gate: {failure}");
    ExitCode::FAILURE
}

/// How a connection ends without an error while this program is still itself.
enum Served {
    /// The peer may not connect. An everyday event, not a failure of the unit.
    Refused,
}

/// The whole life of a connection; on success it ends in `execve`.
fn serve(args: &Args) -> Result<Served> {
    exec::close_inherited_files()?;
    // The last moment with CAP_SETUID in this process: the writer takes it along, and it is gone here.
    let writer = MapWriter::fork(args.subids)?;
    caps::drop_all_but(caps::SYS_ADMIN)?;

    let peer = peer::of_stdin()?;
    let access = conf::load(&args.conf, std::env::var_os(exec::NIX_CONFIG).as_deref())?;
    let names = accounts::names(peer);
    let trusted = match decide(&access, peer.uid, &names, args, accounts::members) {
        Verdict::Trusted => true,
        Verdict::Untrusted => false,
        Verdict::Refused(reason) => {
            eprintln!("refused connection from pid {}, {names}: {reason}", peer.pid);
            refuse::tell(&format!("{names} is not allowed to connect to the Nix daemon"));
            return Ok(Served::Refused);
        }
    };
    if let Some(count) = connections_of_the_same_user().filter(|count| *count > args.max_per_user) {
        eprintln!("refused connection from pid {}, {names}: it has {count} connections", peer.pid);
        refuse::tell(&format!(
            "{names} has too many connections to the Nix daemon; at most {} are allowed",
            args.max_per_user
        ));
        return Ok(Served::Refused);
    }
    eprintln!(
        "accepted connection from pid {}, {names}{}",
        peer.pid,
        if trusted { " (trusted)" } else { "" }
    );

    namespace::enter(writer, args)?;
    let never: Infallible = exec::daemon(args, trusted)?;
    match never {}
}
