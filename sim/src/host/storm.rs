//! Faults that a seed draws: one after the other, and all mended in the end.

use core::time::Duration;

use super::simnet::SimNet;

/// Which faults, and for how long.
///
/// ```
/// use commipc_sim::Storm;
/// use std::time::Duration;
///
/// let no_crashes = Storm::lasting(Duration::from_secs(30)).crashes(0);
/// ```
#[derive(Clone, Debug)]
pub struct Storm {
    lasts: Duration,
    /// The longest time without a new fault, and the longest that one lasts.
    pace: Duration,
    /// Cuts, mutes, partitions, pauses, crashes.
    weights: [u64; 5],
}

impl Storm {
    /// How long after its end everything is mended.
    pub(super) const AFTER: Duration = Duration::from_secs(1);

    /// Every kind of fault, equally often, for so long.
    #[must_use]
    pub const fn lasting(lasts: Duration) -> Self {
        Self { lasts, pace: Duration::from_secs(2), weights: [1; 5] }
    }

    /// The longest time between two faults, which is also the longest that one lasts; two seconds otherwise.
    #[must_use]
    pub const fn pace(self, pace: Duration) -> Self {
        Self { pace, ..self }
    }

    /// How often connections break, beside the other kinds.
    #[must_use]
    pub const fn cuts(self, weight: u64) -> Self {
        self.weighing(0, weight)
    }

    /// How often connections become half open.
    #[must_use]
    pub const fn mutes(self, weight: u64) -> Self {
        self.weighing(1, weight)
    }

    /// How often nodes are parted for a while.
    #[must_use]
    pub const fn partitions(self, weight: u64) -> Self {
        self.weighing(2, weight)
    }

    /// How often nodes stop for a while.
    #[must_use]
    pub const fn pauses(self, weight: u64) -> Self {
        self.weighing(3, weight)
    }

    /// How often hubs and programs of the builder are killed and started again.
    #[must_use]
    pub const fn crashes(self, weight: u64) -> Self {
        self.weighing(4, weight)
    }

    const fn weighing(mut self, kind: usize, weight: u64) -> Self {
        self.weights[kind] = weight;
        self
    }

    pub(super) const fn lasts(&self) -> Duration {
        self.lasts
    }

    pub(super) async fn rage(self, net: SimNet) {
        let known = net.names();
        let hubs: Vec<_> = known.iter().filter(|name| net.is_hub(name)).cloned().collect();
        let pick = |from: &[String]| from.get(net.hurt(from.len() as u64) as usize).cloned().unwrap_or_default();
        loop {
            let left = self.lasts.saturating_sub(net.elapsed());
            let (wait, holds) = (self.time(&net).min(left), self.time(&net));
            net.sleep(wait).await;
            let left = self.lasts.saturating_sub(net.elapsed());
            if left.is_zero() {
                break;
            }
            let hub = pick(&hubs);
            let others: Vec<_> = net.living().into_iter().filter(|name| *name != hub).collect();
            let victim = pick(&others);
            match net.kind(&self.weights) {
                Some(0) => net.cut(&victim, &hub),
                Some(1) if net.hurt(2) == 0 => net.mute(&victim, &hub),
                Some(1) => net.mute(&hub, &victim),
                Some(2) => {
                    net.partition(&[&victim], &[&hub]);
                    net.sleep(holds.min(left)).await;
                    net.heal();
                }
                Some(3) => {
                    let victim = if net.hurt(3) == 0 { hub } else { victim };
                    net.pause(&victim);
                    net.sleep(holds.min(left)).await;
                    net.resume(&victim);
                }
                Some(4) => {
                    // What the scenario has started only it can start again.
                    let victim = pick(&known);
                    net.crash(&victim);
                    net.sleep(holds.min(left)).await;
                    net.restart(&victim).await;
                }
                Some(_) | None => break,
            }
        }
    }

    fn time(&self, net: &SimNet) -> Duration {
        let most = u64::try_from(self.pace.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(net.hurt(most.saturating_add(1)))
    }
}
