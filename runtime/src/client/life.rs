//! What the handles of one opened channel share: whether it is still open, who owns it, how its password was derived.

use std::future::poll_fn;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Poll, Waker};

use commipc_protocol::ClientId;
use commipc_protocol::auth::{ChannelMaster, Secret};
use commipc_protocol::client::{ChannelSalt, Failure};

use super::queue::Queue;
use crate::sync::lock;

/// One opening of a channel, from the hub's consent to its end. Openings of the same channel at the same time share it.
#[derive(Default)]
pub(super) struct Life {
    /// Whether its messages must be signed.
    guarded: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    closed: Option<Failure>,
    owner: Option<ClientId>,
    /// How often the owner changed.
    changes: u64,
    queues: Vec<Weak<Queue>>,
    wakers: Vec<Waker>,
}

/// How a channel's password was derived last.
pub(super) struct Derived {
    pub(super) secret: Secret,
    pub(super) salt: ChannelSalt,
    pub(super) master: ChannelMaster,
}

impl Life {
    pub(super) fn is_guarded(&self) -> bool {
        self.guarded.load(Ordering::Acquire)
    }

    pub(super) fn set_guarded(&self, guarded: bool) {
        self.guarded.store(guarded, Ordering::Release);
    }

    /// Why it is over, if it is.
    pub(super) fn ended(&self) -> Option<Failure> {
        lock(&self.state).closed
    }

    /// Ends a listener's queue with the channel.
    pub(super) fn attach(&self, queue: &Arc<Queue>) {
        let mut state = lock(&self.state);
        state.queues.retain(|queue| queue.strong_count() > 0);
        state.queues.push(Arc::downgrade(queue));
    }

    pub(super) fn close(&self, why: Failure) {
        let (queues, wakers) = {
            let mut state = lock(&self.state);
            state.closed = Some(why);
            (mem::take(&mut state.queues), mem::take(&mut state.wakers))
        };
        queues.iter().filter_map(Weak::upgrade).for_each(|queue| queue.close(why));
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(super) fn set_owner(&self, owner: Option<ClientId>) {
        let wakers = {
            let mut state = lock(&self.state);
            state.owner = owner;
            state.changes += 1;
            mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits for the end.
    pub(super) async fn closed(&self) -> Failure {
        self.wait(|state| state.closed).await
    }

    /// Waits until the owner changes after this was asked; `None` in the place of an owner where there is none.
    pub(super) async fn owner_changed(&self) -> Result<Option<ClientId>, Failure> {
        let before = lock(&self.state).changes;
        self.wait(|state| match (state.changes > before, state.closed) {
            (true, _) => Some(Ok(state.owner.clone())),
            (false, closed) => closed.map(Err),
        })
        .await
    }

    async fn wait<T>(&self, ready: impl Fn(&State) -> Option<T>) -> T {
        poll_fn(|cx| {
            let mut state = lock(&self.state);
            if let Some(value) = ready(&state) {
                return Poll::Ready(value);
            }
            if !state.wakers.iter().any(|known| known.will_wake(cx.waker())) {
                state.wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}
