//! What a process has used so far, as Linux tells it: CPU time and context switches of all its threads, and memory.

use std::fs;
use std::iter::Sum;
use std::path::Path;

/// Totals of a process since its start. Threads that have ended are not counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) cpu_ns: u64,
    pub(super) switches: u64,
}

impl Usage {
    /// Reads the totals; `None` where the system does not tell them.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let mut total = Self::default();
        for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
            let path = thread.ok()?.path();
            // A thread that ends in between is none of the long-lived ones that count.
            if let (Some(cpu), Some(switches)) = (cpu_ns(&path), switches(&path)) {
                total.cpu_ns += cpu;
                total.switches += switches;
            }
        }
        Some(total)
    }

    /// Microseconds on a CPU for each of so many operations.
    pub(super) fn cpu_us(self, operations: u64) -> f64 {
        self.cpu_ns as f64 / 1e3 / operations.max(1) as f64
    }

    /// Context switches for each of so many operations.
    pub(super) fn switches(self, operations: u64) -> f64 {
        self.switches as f64 / operations.max(1) as f64
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            switches: self.switches.saturating_sub(earlier.switches),
        }
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            cpu_ns: sum.cpu_ns + one.cpu_ns,
            switches: sum.switches + one.switches,
        })
    }
}

/// What processes used between two readings.
pub(super) fn between<const N: usize>(before: [Option<Usage>; N], after: [Option<Usage>; N]) -> [Option<Usage>; N] {
    std::array::from_fn(|part| Some(after[part]?.since(before[part]?)))
}

/// The resident memory of a process in bytes; `None` where the system does not tell it.
pub(super) fn memory(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// Nanoseconds on a CPU: the first figure of `schedstat`, or clock ticks where the kernel keeps none.
fn cpu_ns(thread: &Path) -> Option<u64> {
    if let Ok(text) = fs::read_to_string(thread.join("schedstat")) {
        return text.split_whitespace().next()?.parse().ok();
    }
    /// Linux tells user and system time in hundredths of a second on every architecture.
    const TICK_NS: u64 = 10_000_000;
    let stat = fs::read_to_string(thread.join("stat")).ok()?;
    // The name in brackets may hold anything; what follows the last bracket does not. User time is field 14 of all.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
    Some((ticks(14)? + ticks(15)?) * TICK_NS)
}

fn switches(thread: &Path) -> Option<u64> {
    let status = fs::read_to_string(thread.join("status")).ok()?;
    let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    Some(of("voluntary_ctxt_switches:")? + of("nonvoluntary_ctxt_switches:")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn work_shows() {
        let pid = std::process::id();
        let before = Usage::of(pid).unwrap();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(100) {
            std::hint::black_box(started.elapsed());
        }
        std::thread::sleep(Duration::from_millis(20));
        let used = between([Some(before), None], [Usage::of(pid), None])[0].unwrap();
        assert!(used.cpu_ns > 1_000_000, "{used:?}");
        assert!(used.switches > 0, "{used:?}");
        assert!((used.cpu_us(10) - used.cpu_ns as f64 / 1e4).abs() < 1e-6);
    }

    #[test]
    fn memory_shows() {
        let before = memory(std::process::id()).unwrap();
        let much = std::hint::black_box(vec![1u8; 64 << 20]);
        let grown = memory(std::process::id()).unwrap() - before;
        drop(much);
        // Other tests run beside this one.
        assert!((48 << 20..256 << 20).contains(&grown), "{grown}");
    }
}
