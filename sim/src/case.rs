//! A failing run as it is kept: a file that replays it, and says what is found in it.
//!
//! ```text
//! # requests at 30 µs, c0: never ended: t3
//! # oracle: requests
//! # canary: 40
//! # 5 steps, 88 inputs and outputs
//! work/c0: 1 1 0 4
//! ```

use std::fmt;
use std::str::FromStr;

use commipc_protocol::canary::{Canary, plant};

use crate::decisions::{Choices, NotChoices};
use crate::run::{Outcome, Source, run};
use crate::shrink::Shrunk;

/// A failing run, and who found what in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// What is said about it, without what follows here.
    pub remarks: Vec<String>,
    /// Who found something.
    pub oracle: String,
    /// The planted bug with which that is so, if it was one; without one it must be mended by now.
    pub canary: Option<Canary>,
    /// The run.
    pub choices: Choices,
}

const ORACLE: &str = "oracle: ";
const CANARY: &str = "canary: ";

impl Case {
    /// What came of shrinking.
    #[must_use]
    pub fn of(shrunk: &Shrunk, canary: Option<Canary>) -> Self {
        let size = format!("{} steps, {} inputs and outputs", shrunk.size.steps, shrunk.size.events);
        let remarks = vec![shrunk.failure.to_string(), size];
        Self { remarks, oracle: shrunk.failure.oracle.to_owned(), canary, choices: shrunk.choices.clone() }
    }

    /// Runs it, without its planted bug or, where bugs can be planted, with it.
    #[must_use]
    pub fn replay(&self, planted: bool) -> Outcome {
        // Where none can be planted nothing is, and the caller was told.
        let _ = plant(self.canary.filter(|_| planted));
        let outcome = run(Source::Choices(self.choices.clone()), true);
        let _ = plant(None);
        outcome
    }

    /// Whether it is found once more, by the same oracle.
    #[must_use]
    pub fn is_found_in(&self, outcome: &Outcome) -> bool {
        outcome.failures.iter().any(|failure| failure.oracle == self.oracle)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.remarks.iter().try_for_each(|remark| writeln!(f, "# {remark}"))?;
        writeln!(f, "# {ORACLE}{}", self.oracle)?;
        if let Some(canary) = self.canary {
            writeln!(f, "# {CANARY}{}", canary.number())?;
        }
        write!(f, "{}", self.choices)
    }
}

impl FromStr for Case {
    type Err = NotChoices;

    fn from_str(text: &str) -> Result<Self, NotChoices> {
        let mut case = Self { choices: text.parse()?, ..Self::default() };
        for (line, remark) in text.lines().enumerate().filter_map(|(line, text)| Some((line, text.strip_prefix("# ")?)))
        {
            if let Some(oracle) = remark.strip_prefix(ORACLE) {
                oracle.clone_into(&mut case.oracle);
            } else if let Some(number) = remark.strip_prefix(CANARY) {
                let canary = number.parse().ok().and_then(Canary::from_number);
                case.canary = Some(canary.ok_or(NotChoices { line: line + 1 })?);
            } else {
                case.remarks.push(remark.to_owned());
            }
        }
        Ok(case)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_read_as_it_was_written() {
        let choices: Choices = "work/c0: 1 0 7\n".parse().unwrap();
        let remarks = vec!["never ended".to_owned(), "5 steps".to_owned()];
        let case = Case { remarks, oracle: "requests".to_owned(), canary: Some(Canary::Echo), choices };
        assert_eq!(case.to_string().parse(), Ok(case.clone()));
        let plain = Case { canary: None, ..case };
        assert_eq!(plain.to_string().parse(), Ok(plain));
        assert!("# canary: 4711\n".parse::<Case>().is_err(), "no such bug");
    }
}
