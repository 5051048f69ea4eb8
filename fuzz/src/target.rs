//! Runs the target that has the name of the binary.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzed::run(env!("CARGO_BIN_NAME"), data));
