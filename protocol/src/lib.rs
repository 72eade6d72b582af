//! The CommIPC protocol as pure state machines: bytes and time in, bytes and events out.
#![no_std]
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used))]

extern crate alloc;

pub mod auth;
pub mod bridge;
#[doc(hidden)]
pub mod canary;
pub mod client;
mod error;
mod hash;
pub mod hub;
mod limits;
mod machine;
mod names;
mod policy;
mod seed;
mod slots;
mod time;
mod timers;
pub mod wire;

pub use error::{CloseReason, Code, Fault, FaultCode, Misuse, Refusal, Violation};
pub use limits::{FRAME_CAP, Limits, TIME_LEFT_MAX};
pub use machine::{Flush, Input, LinkEnd, LinkId, Machine, Output, Peer, READ_BUFFER, Transport};
pub use names::{
    Address, ChannelName, ClientId, CredentialId, EventName, HubId, NAME_MAX, Name, NameError, RESERVED_PREFIX,
};
pub use policy::{AfterGrace, OwnerPolicy};
pub use seed::Seed;
pub use time::{Deadline, Instant, Now, TimerReason, UnixMillis};
