//! Frames of two hubs to the bridge between them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| commipc_sim::fuzzing::bridge(data));
