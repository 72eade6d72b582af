//! A stranger's bytes to a client.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| commipc_sim::fuzzing::hub_bytes(data));
