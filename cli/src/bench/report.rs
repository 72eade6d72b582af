//! Medians of the rounds, as a table or as JSON.

use std::fmt::Write as _;

/// Everything measured, ready to be shown.
pub(super) struct Report {
    bench: &'static str,
    title: String,
    columns: Columns,
    setup: serde_json::Value,
    sections: Vec<Section>,
}

/// What is compared, in tables and as keys of JSON: the first is divided by the second.
#[derive(Clone, Copy)]
pub(super) enum Columns {
    /// A hub and a relay without protocol.
    Floor,
    /// A channel with a password and one without.
    Signed,
    /// Hubs that bridges join and one hub.
    Hops,
}

impl Columns {
    const fn names(self) -> [&'static str; 2] {
        match self {
            Self::Floor => ["commipc", "raw relay"],
            Self::Signed => ["signed", "unsigned"],
            Self::Hops => ["bridged", "one hub"],
        }
    }

    const fn keys(self) -> [&'static str; 2] {
        match self {
            Self::Floor => ["commipc", "raw"],
            Self::Signed => ["signed", "unsigned"],
            Self::Hops => ["bridged", "one_hub"],
        }
    }
}

/// Figures that belong together: the key in JSON, the heading of the table, the rows.
pub(super) struct Section {
    pub(super) key: String,
    pub(super) title: String,
    pub(super) rows: Vec<Row>,
}

/// One figure of the hub and of the floor, for every round.
pub(super) struct Row {
    key: &'static str,
    label: &'static str,
    unit: Unit,
    rounds: Vec<[Option<f64>; 2]>,
}

/// What a figure counts.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    Micros,
    PerSecond,
    /// A part of something.
    Fraction,
    /// Whole things.
    Number,
    Kibibytes,
}

/// One figure: its key in JSON, its label in the table, its unit, and how it follows from what one round measured.
pub(super) type Figure<T> = (&'static str, &'static str, Unit, fn(&T) -> Option<f64>);

impl Report {
    /// A report; `what` says in a few words what was measured.
    pub(super) fn new(
        bench: &'static str,
        what: &str,
        rounds: usize,
        setup: serde_json::Value,
        sections: Vec<Section>,
    ) -> Self {
        let title = format!("{what}, medians of {rounds} rounds");
        Self { bench, title, columns: Columns::Floor, setup, sections }
    }

    /// The same with other things compared.
    pub(super) fn comparing(self, columns: Columns) -> Self {
        Self { columns, ..self }
    }

    /// Prints it.
    pub(super) fn show(&self, json: bool) {
        if json {
            crate::say(self.json());
        } else {
            crate::say_raw(&self.table());
        }
    }

    /// Lines for people.
    fn table(&self) -> String {
        let [one, other] = self.columns.names();
        let mut out = format!("{}; a ratio is {one} / {other}\n", self.title);
        for Section { title, rows, .. } in &self.sections {
            // Writing to a string cannot fail, here and below.
            let _ = writeln!(out, "\n{title:<42}{one:>14}{other:>14}{:>9}", "ratio");
            for row in rows {
                let ratio = row.ratio().map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}"));
                let [hub, raw] = row.medians().map(|median| row.unit.show(median));
                let _ = writeln!(out, "  {:<40}{hub:>14}{raw:>14}{ratio:>9}", row.label);
            }
        }
        out
    }

    /// One line for programs. The keys tell the units; a figure that is not known is null.
    fn json(&self) -> String {
        let [one, other] = self.columns.keys();
        let mut line = serde_json::json!({ "bench": self.bench, "setup": self.setup });
        for section in &self.sections {
            for row in &section.rows {
                let [hub, raw] = row.medians();
                line[section.key.as_str()][row.key] = serde_json::json!({
                    one: hub, other: raw, "ratio": row.ratio(), "rounds": row.rounds,
                });
            }
        }
        line.to_string()
    }
}

impl Row {
    /// Rows of what the hub and the floor measured in each round.
    pub(super) fn all<T>(figures: &[Figure<T>], rounds: &[[T; 2]]) -> Vec<Self> {
        let row = |&(key, label, unit, figure): &Figure<T>| {
            let rounds = rounds.iter().map(|targets| targets.each_ref().map(figure)).collect();
            Self { key, label, unit, rounds }
        };
        figures.iter().map(row).collect()
    }

    fn medians(&self) -> [Option<f64>; 2] {
        [0, 1].map(|target| median(&self.rounds.iter().map(|round| round[target]).collect::<Vec<_>>()))
    }

    fn ratio(&self) -> Option<f64> {
        let [hub, raw] = self.medians();
        let (hub, raw) = (hub?, raw?);
        (raw > 0.0).then(|| hub / raw)
    }
}

impl Unit {
    fn show(self, value: Option<f64>) -> String {
        let Some(value) = value else { return "–".into() };
        match self {
            Self::Micros if value < 1.0 => format!("{value:.3} µs"),
            Self::Micros if value < 10.0 => format!("{value:.2} µs"),
            Self::Micros => format!("{value:.1} µs"),
            Self::PerSecond | Self::Number => format!("{value:.0}"),
            Self::Fraction => format!("{value:.4}"),
            Self::Kibibytes => format!("{value:.2} KiB"),
        }
    }
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

    #[test]
    fn a_report_says_the_same_to_people_and_programs() {
        let figures: [Figure<f64>; 2] =
            [("x_us", "x", Unit::Micros, |x| Some(*x)), ("y", "y", Unit::Number, |x| (*x > 2.0).then_some(*x))];
        let rows = Row::all(&figures, &[[1.0, 2.0], [5.0, 2.0], [3.0, 4.0]]);
        let section = Section { key: "part".into(), title: "under load".into(), rows };
        let report = Report::new("test", "Nothing", 3, serde_json::json!({ "n": 1 }), vec![section]);
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!((&json["bench"], &json["setup"]["n"]), (&"test".into(), &1.into()));
        let x = &json["part"]["x_us"];
        assert_eq!([&x["commipc"], &x["raw"], &x["ratio"]].map(|n| n.as_f64().unwrap()), [3.0, 2.0, 1.5]);
        assert_eq!(json["part"]["y"]["raw"], serde_json::Value::Null);
        let table = report.table();
        for part in ["Nothing, medians of 3 rounds", "under load", "3.00 µs", "1.50", "–"] {
            assert!(table.contains(part), "{part}: {table}");
        }
    }
}
