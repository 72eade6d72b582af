//! Reads one frame's body, behind its type.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| commipc_sim::fuzzing::control_body(data));
