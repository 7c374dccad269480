//! The program: see the library's documentation and `README.md`.

use nix_build_broker::args::{Task, USAGE};
use nix_build_broker::{client, log, serve};
use std::process::ExitCode;

fn main() -> ExitCode {
    match Task::parse(std::env::args_os().skip(1)) {
        Err(failure) => {
            log::line(format_args!("{failure}\n{USAGE}"));
            ExitCode::from(2)
        }
        Ok(Task::Client { socket, document }) => client::build(&socket, &document),
        Ok(Task::Refuse) => client::refuse(),
        Ok(Task::Serve(args)) => match serve::serve(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                log::line(failure);
                ExitCode::FAILURE
            }
        },
    }
}
