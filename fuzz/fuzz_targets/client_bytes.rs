//! A stranger's bytes to a hub.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| commipc_sim::fuzzing::client_bytes(data));
