//! The `nix-unroot` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    nix_unroot::cli::main()
}
