#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nix_daemon_gate::fuzz::group(input));
