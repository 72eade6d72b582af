//! The same bytes whole and in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| commipc_sim::fuzzing::chunking(data));
