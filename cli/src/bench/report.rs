//! Medians of the rounds, as a table or as JSON.

use std::fmt::Write as _;

use super::args::BenchRpc;
use super::load::Summary;
use super::usage::Usage;

/// One consumer's result and what the processes used for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    pub(super) summary: Summary,
    pub(super) hub: Option<Usage>,
    pub(super) provider: Option<Usage>,
    pub(super) consumer: Option<Usage>,
}

/// One target in one round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    pub(super) latency: Phase,
    pub(super) load: Phase,
}

/// Both targets, one after the other.
pub(super) struct Round {
    pub(super) hub: Figures,
    pub(super) raw: Figures,
}

/// Everything measured, ready to be shown.
pub(super) struct Report {
    title: String,
    setup: serde_json::Value,
    sections: [(&'static str, String, Vec<Row>); 2],
}

/// One figure: the medians of the hub and of the floor, and both for every round.
struct Row {
    key: &'static str,
    label: &'static str,
    unit: Unit,
    hub: Option<f64>,
    raw: Option<f64>,
    rounds: Vec<[Option<f64>; 2]>,
}

#[derive(Clone, Copy)]
enum Unit {
    Micros,
    PerSecond,
    Count,
}

impl Report {
    pub(super) fn of(args: &BenchRpc, rounds: &[Round]) -> Self {
        let (size, clients, seconds) = (args.size, args.clients, args.seconds);
        let content = if args.raw { "raw bytes" } else { "CBOR" };
        let title = format!(
            "RPC, {size} B as {content}, medians of {} rounds of {seconds} s; a ratio is commipc / raw relay",
            rounds.len()
        );
        let setup = serde_json::json!({
            "size": size, "raw_payload": args.raw, "in_flight": args.in_flight, "clients": clients,
            "seconds": seconds, "rounds": rounds.len(), "hub_url": args.hub_url,
        });
        let under = format!("{} in flight on each of {clients} connections", args.in_flight);
        let latency = rows(rounds, |figures| &figures.latency);
        let load = rows(rounds, |figures| &figures.load);
        Self { title, setup, sections: [("latency", "1 in flight".into(), latency), ("load", under, load)] }
    }

    /// Lines for people.
    pub(super) fn table(&self) -> String {
        let mut out = format!("{}\n", self.title);
        for (_, title, rows) in &self.sections {
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(out, "\n{title:<28}{:>12}{:>12}{:>9}", "commipc", "raw relay", "ratio");
            for row in rows {
                let ratio = row.ratio().map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}"));
                let (hub, raw) = (row.unit.show(row.hub), row.unit.show(row.raw));
                let _ = writeln!(out, "  {:<26}{hub:>12}{raw:>12}{ratio:>9}", row.label);
            }
        }
        out
    }

    /// One line for programs. The keys tell the units; a figure that is not known is null.
    pub(super) fn json(&self) -> String {
        let mut line = serde_json::json!({ "bench": "rpc", "setup": self.setup });
        for (name, _, rows) in &self.sections {
            for row in rows {
                line[name][row.key] = serde_json::json!({
                    "commipc": row.hub, "raw": row.raw, "ratio": row.ratio(), "rounds": row.rounds,
                });
            }
        }
        line.to_string()
    }
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        let (hub, raw) = (self.hub?, self.raw?);
        (raw > 0.0).then(|| hub / raw)
    }
}

impl Unit {
    fn show(self, value: Option<f64>) -> String {
        let Some(value) = value else { return "–".into() };
        match self {
            Self::Micros if value < 10.0 => format!("{value:.2} µs"),
            Self::Micros => format!("{value:.1} µs"),
            Self::PerSecond => format!("{value:.0}"),
            Self::Count => format!("{value:.3}"),
        }
    }
}

type Figure = fn(&Phase) -> Option<f64>;

fn rows(rounds: &[Round], phase: fn(&Figures) -> &Phase) -> Vec<Row> {
    let figures: [(&str, &str, Unit, Figure); 9] = [
        ("calls_per_s", "calls/s", Unit::PerSecond, |phase| Some(phase.summary.rate())),
        ("p50_us", "p50", Unit::Micros, |phase| Some(f64::from(phase.summary.p50_ns) / 1e3)),
        ("p90_us", "p90", Unit::Micros, |phase| Some(f64::from(phase.summary.p90_ns) / 1e3)),
        ("p99_us", "p99", Unit::Micros, |phase| Some(f64::from(phase.summary.p99_ns) / 1e3)),
        ("max_us", "max", Unit::Micros, |phase| Some(f64::from(phase.summary.max_ns) / 1e3)),
        ("hub_cpu_us", "hub CPU per call", Unit::Micros, |phase| cpu_us(phase, phase.hub)),
        ("hub_switches", "hub switches per call", Unit::Count, |phase| {
            Some(phase.hub?.switches as f64 / phase.summary.calls.max(1) as f64)
        }),
        ("provider_cpu_us", "provider CPU per call", Unit::Micros, |phase| cpu_us(phase, phase.provider)),
        ("consumer_cpu_us", "consumer CPU per call", Unit::Micros, |phase| cpu_us(phase, phase.consumer)),
    ];
    let row = |(key, label, unit, figure): (&'static str, &'static str, Unit, Figure)| {
        let rounds: Vec<_> = rounds.iter().map(|round| [&round.hub, &round.raw].map(|f| figure(phase(f)))).collect();
        let [hub, raw] = [0, 1].map(|target| median(&rounds.iter().map(|round| round[target]).collect::<Vec<_>>()));
        Row { key, label, unit, hub, raw, rounds }
    };
    figures.into_iter().map(row).collect()
}

fn cpu_us(phase: &Phase, used: Option<Usage>) -> Option<f64> {
    Some(used?.cpu_ns as f64 / 1e3 / phase.summary.calls.max(1) as f64)
}

fn median(values: &[Option<f64>]) -> Option<f64> {
    let mut known: Vec<f64> = values.iter().copied().collect::<Option<_>>()?;
    known.sort_by(f64::total_cmp);
    let middle = known.len() / 2;
    match known.len() {
        0 => None,
        n if n % 2 == 1 => Some(known[middle]),
        _ => Some(f64::midpoint(known[middle - 1], known[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[Some(3.0), Some(1.0), Some(2.0)]), Some(2.0));
        assert_eq!(median(&[Some(1.0), Some(2.0)]), Some(1.5));
        assert_eq!(median(&[Some(1.0), None]), None);
    }
}
