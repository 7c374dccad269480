#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nix_root_scan::fuzz::names(input));
