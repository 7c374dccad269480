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
    let is_native = variable("TARGET") == variable("HOST");
    if !is_native {
        rustc.args(["--target", &variable("TARGET")]);
    }
    // Zig's (scripts/release) links nothing statically against glibc; what is static does not care which version it was.
    if let Ok(linker) = env::var("RUSTC_LINKER")
        && !(is_native && linker.contains("zig"))
    {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    // As above: without the compiler that cargo itself runs there is no build.
    let status = rustc.arg(SOURCE).arg("-o").arg(&program).status().expect("rustc can be started");
    assert!(
        status.success(),
        "cannot compile {SOURCE} statically; on Debian the C library's static half is in libc6-dev"
    );
    let bytes = std::fs::read(&program).expect("it was just written");
    assert!(
        !needs_a_loader(&bytes),
        "{SOURCE} was not linked statically, and in a build's sandbox there is no loader: another linker is needed"
    );
}

/// Whether a 64-bit little-endian ELF program has a header of the type `PT_INTERP`, 3 (elf(5)).
fn needs_a_loader(program: &[u8]) -> bool {
    let number = |at: usize, size: usize| {
        program[at..at + size].iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|index| number(table + index * size, 4) == 3)
}
