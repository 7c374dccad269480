//! The program: see the library's documentation and `README.md`.

use nix_daemon_gate::args::{Args, USAGE};
use nix_daemon_gate::{Failure, Result, acceptor, listen, log};
use std::process::ExitCode;

fn main() -> ExitCode {
    // From here on no capability is in effect, whatever comes.
    #[cfg(target_os = "linux")]
    if let Err(failure) = nix_daemon_gate::caps::lower() {
        return fail(&failure);
    }
    let args = match Args::parse(std::env::args_os().skip(1)) {
        Ok(args) => args,
        Err(failure) => {
            log::line(format_args!("{failure}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    log::line(failure);
    ExitCode::FAILURE
}

fn run(args: &Args) -> Result<()> {
    let socket = listen::socket(args)?;
    acceptor::run(socket, args)
}
