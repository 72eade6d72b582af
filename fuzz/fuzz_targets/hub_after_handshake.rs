//! Frames of a client that was admitted, beside honest ones.
#![no_main]

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    commipc_sim::fuzzing::resign(data, size, max_size, seed)
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| commipc_sim::fuzzing::hub_after_handshake(data));
