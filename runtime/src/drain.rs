//! What is told of a drain: how much still runs, and whether all of it was finished.

use std::mem;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use commipc_protocol::{CloseReason, Code, Misuse};
use thiserror::Error;

use crate::error::close_code;
use crate::sync::lock;

/// Why a drain has not finished what ran. It is over all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DrainError {
    /// The time was over: so many requests were ended before they were finished.
    #[error("the time to finish was over: {0} cut off")]
    Cut(usize),
    /// The connection was gone before, and what ran on it with it.
    #[error("{0}")]
    Closed(CloseReason),
}

impl DrainError {
    /// The stable number.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Cut(_) => Code(Misuse::Deadline.code()),
            Self::Closed(reason) => close_code(*reason),
        }
    }
}

/// How far a drain is.
#[derive(Default)]
pub(crate) struct Progress(Mutex<State>);

#[derive(Default)]
struct State {
    /// `None` before it begins.
    running: Option<usize>,
    cut: usize,
    over: bool,
    wakers: Vec<Waker>,
}

impl Progress {
    pub(crate) fn running(&self, running: usize) {
        lock(&self.0).running = Some(running);
    }

    pub(crate) fn cut(&self, more: usize) {
        lock(&self.0).cut += more;
    }

    /// Nothing runs any more.
    pub(crate) fn end(&self) {
        let wakers = {
            let mut state = lock(&self.0);
            (state.running, state.over) = (Some(0), true);
            mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How much still runs, once it has begun.
    pub(crate) fn left(&self) -> Option<usize> {
        lock(&self.0).running
    }

    pub(crate) fn result(&self) -> Result<(), DrainError> {
        match lock(&self.0).cut {
            0 => Ok(()),
            cut => Err(DrainError::Cut(cut)),
        }
    }

    pub(crate) fn poll_over(&self, cx: &Context<'_>) -> Poll<Result<(), DrainError>> {
        {
            let mut state = lock(&self.0);
            if !state.over {
                if !state.wakers.iter().any(|known| known.will_wake(cx.waker())) {
                    state.wakers.push(cx.waker().clone());
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(self.result())
    }
}
