//! What a process has used so far, as Linux tells it: CPU time and context switches of all its threads.

use std::fs;
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

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            switches: self.switches.saturating_sub(earlier.switches),
        }
    }
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
        let used = Usage::of(pid).unwrap().since(before);
        assert!(used.cpu_ns > 1_000_000, "{used:?}");
        assert!(used.switches > 0, "{used:?}");
    }
}
