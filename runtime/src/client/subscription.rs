//! Handlers of broadcasts: a listener with a task of its own that runs a function for each message.

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;

use serde::de::DeserializeOwned;

use super::Channel;
use super::listen::{Listener, Message};
use super::names::IntoEvent;
use super::provide::Ended;
use crate::error::ListenError;
use crate::runtime::BoxFuture;

/// Messages that are handled before other tasks get their turn.
const AT_A_TIME: usize = 64;

impl Channel {
    /// Runs `handler` for each broadcast of one event, in the order they came and one at a time: the next message waits
    /// until the handler's future is done. Those that are no `T` are counted, not delivered.
    ///
    /// The handler runs in a task of its own, beside every other listener. A panic ends the handling of its message alone, and
    /// is logged. As with any [`Listener`], at most [`QUEUE_MAX`](crate::QUEUE_MAX) messages wait, and the next one tells how
    /// many were [`missed`](Message::missed).
    ///
    /// ```
    /// use commipc_runtime::{Channel, ListenError, Message, Subscription};
    ///
    /// async fn watch(channel: &Channel) -> Result<Subscription, ListenError> {
    ///     channel
    ///         .on("temperature", async |degrees: Message<f64>| {
    ///             println!("{} says {}", degrees.sender(), *degrees);
    ///         })
    ///         .await
    /// }
    /// ```
    ///
    /// # Errors
    /// When the name is none, or the connection is gone.
    ///
    /// # Cancel safety
    /// Dropped midway, it stops listening again.
    pub async fn on<T, F, Fut>(&self, event: impl IntoEvent, handler: F) -> Result<Subscription, ListenError>
    where
        T: DeserializeOwned + 'static,
        F: FnMut(Message<T>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Ok(self.handle_each(self.listen(event).await?, handler))
    }

    /// Runs `handler` for each broadcast of the channel, as [`Channel::on`] does for those of one event.
    ///
    /// # Errors
    /// When the connection is gone.
    ///
    /// # Cancel safety
    /// Dropped midway, it stops listening again.
    pub async fn on_all<T, F, Fut>(&self, handler: F) -> Result<Subscription, ListenError>
    where
        T: DeserializeOwned + 'static,
        F: FnMut(Message<T>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Ok(self.handle_each(self.listen_all().await?, handler))
    }

    fn handle_each<T, F, Fut>(&self, listener: Listener<T>, handler: F) -> Subscription
    where
        T: 'static,
        F: FnMut(Message<T>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let ended = Arc::<Ended>::default();
        self.driver().runtime().spawn(Box::pin(run(listener, handler, Arc::clone(&ended))));
        Subscription { ended: Some(ended) }
    }
}

async fn run<T, F, Fut>(mut listener: Listener<T>, mut handler: F, ended: Arc<Ended>)
where
    F: FnMut(Message<T>) -> Fut + Send,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut handled = 0;
    loop {
        let next = poll_fn(|cx| if ended.poll(cx) { Poll::Ready(None) } else { listener.poll_message(cx) });
        let Some(message) = next.await else { return };
        let started: Result<BoxFuture<'static, ()>, _> =
            catch_unwind(AssertUnwindSafe(|| Box::pin(handler(message)) as BoxFuture<'static, ()>));
        let through = match started {
            Ok(future) => handle(future).await,
            Err(_) => false,
        };
        if !through {
            tracing::warn!("a handler of broadcasts panicked");
        }
        handled += 1;
        if handled % AT_A_TIME == 0 {
            give_way().await;
        }
    }
}

/// Runs one handler to its end, or until it panics.
async fn handle(mut future: BoxFuture<'static, ()>) -> bool {
    let through = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Ready(())) => Poll::Ready(true),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(false),
    });
    let through = through.await;
    // Its `Drop` is the user's, and may panic as well.
    catch_unwind(AssertUnwindSafe(|| drop(future))).is_ok() && through
}

/// Lets other tasks run.
async fn give_way() {
    let mut given = false;
    poll_fn(|cx| {
        if mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A handler of broadcasts that is called as they come. Dropping it stops that; a message that it is at is handled to the
/// end.
#[must_use = "a handler is called no more when its subscription is dropped; keep it, or detach() it"]
pub struct Subscription {
    ended: Option<Arc<Ended>>,
}

impl Subscription {
    /// Goes on for as long as the connection stands, and keeps the connection and the channel open for that.
    pub fn detach(mut self) {
        self.ended = None;
    }

    /// Stops calling the handler, like dropping, and says so.
    pub fn stop(self) {}
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended.end();
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription(..)")
    }
}
