//! Reads a stream of frames, cut in many ways.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| commipc_sim::fuzzing::frame(data));
