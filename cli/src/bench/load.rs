//! What every consumer process has in common: it warms up, waits for the word, makes calls, and tells the result.

use std::io::{BufRead as _, Read as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Calls made before any are counted.
pub(super) const WARM_UP: Duration = Duration::from_millis(200);

/// How long each call took, in nanoseconds (at most 4.29 s).
#[derive(Default)]
pub(crate) struct Samples(Vec<u32>);

impl Samples {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(u32::try_from(time.as_nanos()).unwrap_or(u32::MAX));
    }

    pub(super) fn merge(&mut self, other: Self) {
        if self.0.is_empty() { self.0 = other.0 } else { self.0.extend(other.0) }
    }

    pub(super) fn of_all(parts: Vec<Self>) -> Self {
        let mut all = Self::default();
        parts.into_iter().for_each(|part| all.merge(part));
        all
    }

    pub(crate) fn summary(mut self, time: Duration) -> Summary {
        self.0.sort_unstable();
        Summary {
            calls: self.0.len() as u64,
            seconds: time.as_secs_f64(),
            p50_ns: self.at(50),
            p90_ns: self.at(90),
            p99_ns: self.at(99),
            max_ns: self.at(100),
        }
    }

    /// The sample at a percentile by the nearest-rank method: the smallest that `percent` of all do not exceed.
    fn at(&self, percent: usize) -> u32 {
        let rank = (self.0.len() * percent).div_ceil(100);
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }
}

/// One phase of calls.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Summary {
    pub(crate) calls: u64,
    pub(crate) seconds: f64,
    pub(crate) p50_ns: u32,
    pub(crate) p90_ns: u32,
    pub(crate) p99_ns: u32,
    pub(crate) max_ns: u32,
}

impl Summary {
    pub(crate) fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.calls as f64 / self.seconds } else { 0.0 }
    }
}

/// Runs all at once, each as a task of its own, and collects what they give.
pub(super) async fn together<T, E, F>(futures: impl IntoIterator<Item = F>) -> Result<Vec<T>, E>
where
    T: Send + 'static,
    E: Send + 'static,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    let running: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut all = Vec::with_capacity(running.len());
    for task in running {
        match task.await {
            Ok(outcome) => all.push(outcome?),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
    Ok(all)
}

/// Says that this process is ready and waits until it may begin.
pub(super) fn wait_for_go() -> std::io::Result<()> {
    crate::say("ready");
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Says that this process is ready and goes on until it is told to stop.
pub(super) async fn until_told() -> std::io::Result<()> {
    tokio::task::spawn_blocking(wait_for_go).await.map_err(std::io::Error::other)?
}

/// Tells the result and stays until it was taken, since the counters of a process go with it.
pub(super) fn tell(result: &impl Serialize) -> std::io::Result<()> {
    crate::say(serde_json::to_string(result)?);
    std::io::stdin().lock().read_to_end(&mut Vec::new()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let mut samples = Samples::default();
        (1..=200).rev().for_each(|n| samples.push(Duration::from_nanos(n)));
        let summary = samples.summary(Duration::from_secs(2));
        assert_eq!([summary.p50_ns, summary.p90_ns, summary.p99_ns, summary.max_ns], [100, 180, 198, 200]);
        assert_eq!(summary.calls, 200);
        assert!((summary.rate() - 100.0).abs() < f64::EPSILON);
        assert_eq!(Samples::default().summary(Duration::ZERO).p99_ns, 0);
    }
}
