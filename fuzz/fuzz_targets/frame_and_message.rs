//! Reads one signed message, or a stream of frames.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| commipc_sim::fuzzing::frame_and_message(data));
