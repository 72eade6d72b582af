//! Frames of a client that was admitted, beside honest ones.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzzer_mutate};

// What is changed is framed and signed anew, or it would die at a length or a tag; now and then it is left as it is.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    if seed % 4 == 0 {
        return size;
    }
    let mended = commipc_sim::fuzzing::resigned(&data[..size]);
    let size = mended.len().min(max_size);
    data[..size].copy_from_slice(&mended[..size]);
    size
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| commipc_sim::fuzzing::hub_after_handshake(data));
