//! What became of each of many calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use commipc_tokio::{Away, Channel};

/// What the provider and the callers know of each call, by its number.
#[derive(Default)]
pub struct History {
    pub executed: Mutex<BTreeMap<u64, u32>>,
    /// Whether it was answered, and if not, whether it may have been executed.
    pub ended: Mutex<BTreeMap<u64, Result<(), bool>>>,
    /// Those that may be made again where their link is gone, and so be executed more than once.
    pub repeated: Mutex<BTreeSet<u64>>,
    /// How often something that takes its time was executed.
    pub slow: AtomicUsize,
    /// The number of the last call.
    pub last: AtomicU64,
    pub over: AtomicBool,
}

impl History {
    /// No call was executed twice that may not be, none that was answered was not executed, and none that was said not to be
    /// was.
    pub fn check(&self) -> Outcomes {
        let (executed, ended) = (self.executed.lock().unwrap(), self.ended.lock().unwrap());
        let repeated = self.repeated.lock().unwrap();
        assert_eq!(ended.len() as u64, self.last.load(Ordering::Relaxed), "every call ended");
        let times = |number: &u64| executed.get(number).copied().unwrap_or(0);
        for (number, outcome) in ended.iter() {
            let fine = match (outcome, repeated.contains(number)) {
                (Ok(()), false) => times(number) == 1,
                (Ok(()), true) => times(number) >= 1,
                (Err(true), repeated) => repeated || times(number) <= 1,
                (Err(false), _) => times(number) == 0,
            };
            assert!(fine, "call {number} ended with {outcome:?} and was executed {} times", times(number));
        }
        let count = |fits: &dyn Fn(&u64, Result<(), bool>) -> bool| {
            ended.iter().filter(|(number, outcome)| fits(number, **outcome)).count()
        };
        Outcomes {
            calls: ended.len(),
            answered: count(&|_, outcome| outcome.is_ok()),
            cut: count(&|number, outcome| outcome == Err(true) && times(number) == 1 && !repeated.contains(number)),
            made_again: count(&|number, outcome| outcome.is_ok() && times(number) > 1),
        }
    }

    /// Makes a call of its own number, and keeps what becomes of it.
    pub async fn call(&self, channel: &Channel, event: &str, away: Away) -> Result<(), bool> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let repeats = away == Away::Repeat;
        if repeats {
            self.repeated.lock().unwrap().insert(number);
        }
        let answer = channel.call::<u64>(event, &number).idempotent(repeats).while_away(away).await;
        if let Ok(answer) = &answer {
            assert_eq!(*answer, number, "it is the answer to another call");
        }
        let outcome = answer.map(drop).map_err(|error| error.maybe_executed());
        assert!(self.ended.lock().unwrap().insert(number, outcome).is_none(), "call {number} ended twice");
        outcome
    }
}

/// How many calls ended how.
#[derive(Debug)]
pub struct Outcomes {
    pub calls: usize,
    pub answered: usize,
    /// Executed once, made once, and their callers cannot know.
    pub cut: usize,
    /// Answered, and executed more than once.
    pub made_again: usize,
}

/// Calls without a pause, each call once, until it is over.
pub async fn keep_calling(channel: Channel, event: &str, away: Away, history: Arc<History>) {
    while !history.over.load(Ordering::Relaxed) {
        let _ = history.call(&channel, event, away).await;
    }
}
