//! The memory of a process, searched; and a channel's keys, made by other code than the one that could hide them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use hkdf::Hkdf;
use sha2::Sha256;

/// Everything that a process may read of its own memory.
pub(crate) struct Memory(pub(crate) Vec<Vec<u8>>);

impl Memory {
    pub(crate) fn of(pid: u32) -> Self {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let regions = maps.lines().filter_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (start, end) = range.split_once('-')?;
            let address = |hex| u64::from_str_radix(hex, 16).unwrap();
            let (start, end) = (address(start), address(end));
            // What only the kernel can read, or nobody, is none of the process's.
            let ours = rest.starts_with('r') && !rest.contains("[v");
            ours.then(|| read(&memory, start, usize::try_from(end - start).unwrap()))
        });
        let memory = Self(regions.collect());
        let size: usize = memory.0.iter().map(Vec::len).sum();
        assert!(size > 1 << 20, "{size} bytes are not a process");
        memory
    }

    pub(crate) fn holds(&self, needle: &[u8]) -> bool {
        self.0.iter().any(|region| find(region, needle))
    }
}

/// Reads what can be read, page by page where not all can.
fn read(memory: &File, start: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    if memory.read_exact_at(&mut bytes, start).is_err() {
        for (page, at) in bytes.chunks_mut(4096).zip((start..).step_by(4096)) {
            let _ = memory.read_exact_at(page, at);
        }
    }
    bytes
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    let Some((&first, rest)) = needle.split_first() else { return false };
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| *byte == first) {
        from += at + 1;
        if haystack[from..].starts_with(rest) {
            return true;
        }
    }
    false
}

/// What is derived of a channel's master for an epoch, and only members may know.
pub(crate) struct MemberKeys {
    pub(crate) all: [u8; 32],
    pub(crate) join: [u8; 32],
    pub(crate) end_to_end: [u8; 32],
}

impl MemberKeys {
    pub(crate) fn of(master: &[u8], channel: &str, salt: &[u8; 16], epoch: u64) -> Self {
        let (all, keys) = Hkdf::<Sha256>::extract(Some(b"commipc/1 channel"), master);
        let length = u32::try_from(channel.len()).unwrap().to_be_bytes();
        let context = [&length[..], channel.as_bytes(), salt, &epoch.to_be_bytes()].concat();
        let key = |label: &[u8]| {
            let mut key = [0; 32];
            keys.expand(&[label, &context].concat(), &mut key).unwrap();
            key
        };
        Self { all: all.into(), join: key(b"join\0"), end_to_end: key(b"e2e\0") }
    }
}
