//! Numbers of signed messages, against a set of everything.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| commipc_sim::fuzzing::replay_window(data));
