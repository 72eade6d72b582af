//! Streams as their sender sees them: polled only for what the other end has room for.

use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use commipc_protocol::client::{Command, Credit, Payload, StreamCommand, StreamId};
use commipc_protocol::{Fault, FaultCode};
use futures_core::Stream;

use super::desk::ClientDriver;
use crate::sync::lock;

/// What a stream of encoded items is.
pub(super) type ItemStream = Pin<Box<dyn Stream<Item = Result<Payload, Fault>> + Send>>;

/// Items that are made in one turn of a task, and written together.
const TURN: usize = 512;
/// Bytes of items that are made in one turn, with what items cost beside them: enough for one write.
const TURN_BYTES: u64 = 128 << 10;

/// How much the other end wants, and whether it wants anything at all.
#[derive(Default)]
pub(super) struct Feed(Mutex<Wanted>);

#[derive(Default)]
struct Wanted {
    amount: Credit,
    ended: bool,
    waker: Option<Waker>,
}

impl Feed {
    /// So much more is wanted.
    pub(super) fn demand(&self, amount: Credit) {
        let waker = {
            let mut wanted = lock(&self.0);
            wanted.amount = wanted.amount.plus(amount);
            wanted.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Nothing is wanted any more.
    pub(super) fn end(&self) {
        let waker = {
            let mut wanted = lock(&self.0);
            wanted.ended = true;
            wanted.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Takes what is wanted, or tells that nothing is any more.
    fn take(&self, cx: &Context<'_>) -> Option<Credit> {
        let mut wanted = lock(&self.0);
        if wanted.ended {
            return None;
        }
        if !wanted.waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            wanted.waker = Some(cx.waker().clone());
        }
        Some(mem::take(&mut wanted.amount))
    }
}

/// Sends what a stream gives, for as long as it is wanted.
pub(super) struct Pump {
    driver: Arc<ClientDriver>,
    id: StreamId,
    feed: Arc<Feed>,
    items: Option<ItemStream>,
    wanted: Credit,
    made: Vec<Payload>,
    last: Option<Command>,
    /// What the other end is told instead of more items.
    fault: Option<Fault>,
}

enum Turn {
    /// It waits for the stream or for demand.
    Waits,
    /// Others have their turn first.
    Yields,
    Over,
}

impl Pump {
    pub(super) fn new(driver: Arc<ClientDriver>, id: StreamId, feed: Arc<Feed>, items: ItemStream) -> Self {
        Self { driver, id, feed, items: Some(items), wanted: Credit::NONE, made: Vec::new(), last: None, fault: None }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Turn {
        let Some(wanted) = self.feed.take(cx) else { return Turn::Over };
        self.wanted = self.wanted.plus(wanted);
        let mut made = 0;
        for _ in 0..TURN {
            if made >= TURN_BYTES {
                break;
            }
            if self.wanted.items == 0 || self.wanted.bytes == 0 {
                return Turn::Waits;
            }
            let Some(items) = &mut self.items else { return Turn::Over };
            match catch_unwind(AssertUnwindSafe(|| items.as_mut().poll_next(cx))) {
                Ok(Poll::Ready(Some(Ok(payload)))) => {
                    let cost = Credit::of_piece(payload.bytes.len(), true);
                    self.wanted = self.wanted.minus(cost);
                    made += cost.bytes;
                    self.made.push(payload);
                }
                Ok(Poll::Ready(Some(Err(fault)))) => return self.fail(fault),
                Ok(Poll::Ready(None)) => {
                    self.last = Some(Command::Stream(StreamCommand::Finish { stream: self.id }));
                    return Turn::Over;
                }
                Ok(Poll::Pending) => return Turn::Waits,
                Err(_) => {
                    tracing::warn!("a stream panicked");
                    return self.fail(FaultCode::HandlerPanicked.into());
                }
            }
        }
        Turn::Yields
    }

    /// Why there are no more items, once it is over.
    pub(super) const fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    fn fail(&mut self, fault: Fault) -> Turn {
        self.fault = Some(fault.clone());
        self.last = Some(match self.id {
            StreamId::Request(request) => Command::Answer { request, result: Err(fault) },
            // Only a provider can say what went wrong.
            StreamId::Call(call) => Command::Cancel { call },
        });
        Turn::Over
    }
}

impl Future for Pump {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let turn = this.turn(cx);
        let made = (!this.made.is_empty()).then(|| {
            let payloads = mem::take(&mut this.made);
            Command::Stream(StreamCommand::Items { stream: this.id, payloads })
        });
        this.driver.issue_all(&mut made.into_iter().chain(this.last.take()).collect());
        match turn {
            Turn::Waits => return Poll::Pending,
            Turn::Yields => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Turn::Over => {}
        }
        let items = this.items.take();
        // Its `Drop` is the user's, and may panic.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(items)));
        Poll::Ready(())
    }
}
