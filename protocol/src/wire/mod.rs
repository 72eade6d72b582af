//! The only room that knows bytes: frames, control bodies, the hop header and the signed message.
//!
//! ```text
//!   bytes ──► Inbox ──► Frame ──► Control::parse            bodies of the conversation with the hub
//!                          └────► Hop::split, Message::parse  what travels from client to client
//!   bytes ◄── Outbox ◄── Control::encode, Hop::put, Header::encode
//! ```
//! Everything is parsed once, into borrowed values that cannot be wrong, by the same code for hub and client.
//! `wire.cddl` beside this crate's manifest describes the same bytes for people and other implementations.

pub(crate) mod cbor;
mod control;
#[cfg(test)]
mod control_tests;
mod fault;
mod field;
mod frame;
mod hop;
mod inbox;
mod known;
mod marks;
mod message;
mod outbox;
mod recent;

pub use cbor::Malformed;
pub(crate) use control::PROOF_ENTRY_LEN;
pub use control::{
    Accept, Ack, Announce, Attach, AuthFailed, Challenge, Channel, Control, Credit, Done, Fail, Forget, Goodbye, Hello,
    Join, JoinChallenge, Leave, Listen, Offer, Open, Operate, PIECE_OVERHEAD, Ping, Pong, Proof, Protect, Provide,
    Reclaim, Refused, Remote, Terminate, Told, Unlisten, Unprotect, Welcome, Withdraw,
};
pub(crate) use fault::{parse_fault, put_fault};
pub use field::{Policy, Record, Terms};
pub use frame::{FrameType, LENGTH_LEN, MAGIC, TAG_LEN, VERSION};
pub use hop::{Hop, ROUTE_BY_HUB};
pub(crate) use inbox::Scraps;
pub use inbox::{Frame, Inbox};
pub(crate) use known::{Known, Piece};
pub(crate) use marks::Marks;
pub use message::{Flags, Header, Kind, METADATA_MAX, Message, Target};
pub(crate) use message::{Opening, encoded_len_max, put_message, put_message_end, put_message_head};
pub(crate) use outbox::{Outbox, Pool, put_image};
pub(crate) use recent::Recent;
