//! What became of each of many calls.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use commipc_tokio::{Away, Channel};

/// What the provider and the callers know of each call, by its number.
#[derive(Default)]
pub struct History {
    pub executed: Mutex<BTreeMap<u64, u32>>,
    /// Whether it was answered, and if not, whether it may have been executed.
    pub ended: Mutex<BTreeMap<u64, Result<(), bool>>>,
    /// The number of the last call.
    pub last: AtomicU64,
    pub over: AtomicBool,
}

impl History {
    /// No call was executed twice, none that was answered was not executed, and none that was said not to be was.
    pub fn check(&self) -> (usize, usize) {
        let (executed, ended) = (self.executed.lock().unwrap(), self.ended.lock().unwrap());
        assert_eq!(ended.len() as u64, self.last.load(Ordering::Relaxed), "every call ended");
        let times = |number: &u64| executed.get(number).copied().unwrap_or(0);
        for (number, outcome) in ended.iter() {
            let fine = match outcome {
                Ok(()) => times(number) == 1,
                Err(true) => times(number) <= 1,
                Err(false) => times(number) == 0,
            };
            assert!(fine, "call {number} ended with {outcome:?} and was executed {} times", times(number));
        }
        (ended.len(), ended.values().filter(|outcome| outcome.is_ok()).count())
    }
}

/// Calls without a pause, each call once, until it is over.
pub async fn keep_calling(channel: Channel, event: &str, history: Arc<History>) {
    while !history.over.load(Ordering::Relaxed) {
        let number = history.last.fetch_add(1, Ordering::Relaxed) + 1;
        let answer = channel.call::<u64>(event, &number).while_away(Away::Wait).await;
        if let Ok(answer) = &answer {
            assert_eq!(*answer, number, "it is the answer to another call");
        }
        let outcome = answer.map(drop).map_err(|error| error.maybe_executed());
        assert!(history.ended.lock().unwrap().insert(number, outcome).is_none(), "call {number} ended twice");
    }
}
