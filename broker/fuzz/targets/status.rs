#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| nix_build_broker::fuzz::status(input));
