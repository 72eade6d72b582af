//! A whole run of the simulator that bytes decide.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| commipc_sim::fuzzing::simulator(data));
