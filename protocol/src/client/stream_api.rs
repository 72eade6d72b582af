//! What an application may ask of streams, and what it is told of them.

use alloc::vec::Vec;
use core::time::Duration;

use super::api::{CallFailure, Outgoing, Payload, RequestId, Token};
use crate::error::Misuse;
pub use crate::wire::Credit;

/// Names the end of a stream that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamId {
    /// We asked for it.
    Call(Token),
    /// We were asked for it.
    Request(RequestId),
}

/// What an application may ask of streams.
#[derive(Clone, Debug)]
pub enum StreamCommand {
    /// Ask for a stream. Ends with [`StreamEvent::Ended`]; [`StreamEvent::Accepted`] and items come before.
    Ask {
        /// For `Ended`, and for what comes.
        token: Token,
        /// What is asked.
        outgoing: Outgoing,
        /// How long it may take until a provider takes the request, at most a day.
        time_left: Duration,
        /// How long all of it may take, at most a day: then it ends at both ends, and at the hub. Without, only who asks, or
        /// the loss of a connection, ends a stream whose provider says nothing any more.
        whole: Option<Duration>,
        /// How much may be on its way to us.
        window: Credit,
        /// Whether we have items to send as well: then the event must be an [`EventKind::Exchange`](super::EventKind::Exchange).
        exchange: bool,
    },
    /// Take a request for a stream: from now on it has no deadline, unless that is for the whole of it.
    Accept {
        /// Which request.
        request: RequestId,
        /// How much of the caller's own items may be on its way to us. Read where the event is an exchange.
        window: Credit,
    },
    /// More items of ours. Without effect if the stream has ended meanwhile. More than was asked for with
    /// [`StreamEvent::Demand`] waits in memory.
    Items {
        /// Of which stream.
        stream: StreamId,
        /// The items.
        payloads: Vec<Payload>,
    },
    /// We have no more items. Without effect if the stream has ended meanwhile.
    Finish {
        /// Of which stream.
        stream: StreamId,
    },
    /// The application is through with items, so that more may come.
    Consumed {
        /// Of which stream.
        stream: StreamId,
        /// How many, and the sum of their costs.
        amount: Credit,
    },
}

/// What an application is told of streams.
#[derive(Clone, Debug)]
pub enum StreamEvent {
    /// A provider has taken our request for a stream.
    Accepted {
        /// Its token.
        token: Token,
    },
    /// An item came.
    Item {
        /// Of which stream.
        stream: StreamId,
        /// The item.
        payload: Payload,
        /// What it takes of the window's bytes until it is [`StreamCommand::Consumed`].
        cost: u64,
    },
    /// The caller of an exchange has no more items.
    Finished {
        /// Which request.
        request: RequestId,
        /// Whether all of them have come.
        result: Result<(), Misuse>,
    },
    /// Items of ours are wanted: so many more, and none once they cost so many bytes.
    Demand {
        /// Of which stream.
        stream: StreamId,
        /// How much more.
        amount: Credit,
    },
    /// A stream that we asked for ended.
    Ended {
        /// Its token.
        token: Token,
        /// How. All items have come before.
        result: Result<(), CallFailure>,
    },
}
