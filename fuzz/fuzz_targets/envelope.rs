//! Reads one signed message.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| commipc_sim::fuzzing::envelope(data));
