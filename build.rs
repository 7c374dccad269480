//! Compiles `src/verify/builder/main.rs` into a static program, which `verify` embeds and has Nix run in a sandbox.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "src/verify/builder/main.rs";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    let variable =
        |name: &str| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name} for build scripts"));
    let program = PathBuf::from(variable("OUT_DIR")).join("verify-builder");
    if variable("CARGO_CFG_TARGET_OS") != "linux" {
        // A build script has nobody to return an error to; cargo shows the panic.
        std::fs::write(&program, []).expect("OUT_DIR is writable");
        return;
    }
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition", "2024", "--crate-type", "bin", "--crate-name", "verify_builder"]);
    for option in [
        "opt-level=s",
        "panic=abort",
        "target-feature=+crt-static",
        "strip=symbols",
        "lto=fat",
        "codegen-units=1",
    ] {
        rustc.args(["-C", option]);
    }
    // Without `--target`, host flags such as the linker apply as they do to any program built here.
    if variable("TARGET") != variable("HOST") {
        rustc.args(["--target", &variable("TARGET")]);
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    // As above: without the compiler that cargo itself runs there is no build.
    let status = rustc.arg(SOURCE).arg("-o").arg(&program).status().expect("rustc can be started");
    assert!(
        status.success(),
        "cannot compile {SOURCE} statically; on Debian the C library's static half is in libc6-dev"
    );
}
