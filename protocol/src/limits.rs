//! Every bound in one place, each with its reason and what happens at it.

use core::time::Duration;

/// What a hub or a client allows. The defaults are those of the protocol; all can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How long a client tries to reach its hub before [`Misuse::Unreachable`](crate::Misuse::Unreachable).
    pub dial: Duration,
    /// The whole handshake, so that nobody holds a place by saying nothing. Then [`Violation::HandshakeTimeout`](crate::Violation::HandshakeTimeout).
    pub handshake: Duration,
    /// How long a hub may take to answer what a client asks it about channels: opening, providing, listening and their
    /// undoing. Then [`Misuse::Deadline`](crate::Misuse::Deadline) at the client; what the hub grants later is given back,
    /// and what an owner has changed by then is changed.
    pub registration: Duration,
    /// A frame before authentication, in bytes of type and body. Then [`Violation::FrameTooLarge`](crate::Violation::FrameTooLarge).
    pub handshake_frame: u32,
    /// A frame after authentication, in bytes of type and body; at most 64 MiB. Then `FrameTooLarge`, or `TooLarge` at the sender.
    pub frame: u32,
    /// How long a client hears nothing before it asks whether its hub is there; a hub asks after half as long again, so that
    /// it need not if its client does.
    pub heartbeat: Duration,
    /// How long nothing may be heard at all. Then a client's connection is lost with
    /// [`CloseReason::Silent`](crate::CloseReason::Silent), and a hub ends the link with [`Refusal::Idle`](crate::Refusal::Idle).
    pub idle: Duration,
    /// From the first byte of a frame to its last. Then [`Violation::PartialFrame`](crate::Violation::PartialFrame).
    pub partial_frame: Duration,
    /// Bytes of one link that are with the driver. More waits in the outbox.
    pub in_flight: usize,
    /// Retained bytes in one link's outbox, so that a link that stops reading costs at most its outbox and what is in flight.
    /// At a hub the link ends with [`Refusal::SlowConsumer`](crate::Refusal::SlowConsumer);
    /// at a client the command fails with [`Misuse::Busy`](crate::Misuse::Busy), and at twice as much, which only answers
    /// can make, the link ends with [`Violation::Flood`](crate::Violation::Flood).
    pub outbox: usize,
    /// How long bytes may be with the driver without one of them leaving. At a hub the link then ends with
    /// [`Refusal::SlowConsumer`](crate::Refusal::SlowConsumer).
    pub write: Duration,
    /// Connections that have not proved themselves yet. At the cap one of the older half is closed: the one that has sent
    /// least, then the oldest.
    /// As many connections may wait to be told that they failed; at the cap the one of the same source that has waited
    /// longest is told, or of all if it has none.
    pub unauthenticated: usize,
    /// Of those, how many from one source, where sources differ: an IPv4 address, or the first 64 bits of an IPv6 address.
    /// At the cap one of the same source is closed, chosen as above. Of those that failed, as many may wait.
    pub unauthenticated_per_source: usize,
    /// Failed logins of a source with a credential that are told at once. Further ones wait, so that guessing is slow.
    pub free_failures: u32,
    /// Failures of a source, whatever credentials it names, that are told as those of each credential are. Then all its
    /// failures wait, twice as long with each further such number.
    pub free_failures_per_source: u32,
    /// How long the first failure waits that is not free. Each further one waits twice as long.
    pub failure_delay: Duration,
    /// The longest wait, and how long after its last failure a source is forgotten.
    pub failure_delay_max: Duration,
    /// Sources and credentials whose failures are remembered, and as many sources alone. At the cap the one of the same
    /// source that is quiet for longest is forgotten, or of all if it has none.
    pub failure_table: usize,
    /// Failed logins that observers are told of one by one in each period, since strangers decide how many there are. Of
    /// more they are told the number, as `left_out`, when the period is over.
    pub failures_told: u32,
    /// That period.
    pub failures_told_in: Duration,
    /// Connections at all. Then [`Refusal::TooManyConnections`](crate::Refusal::TooManyConnections).
    pub connections: usize,
    /// Channels one client may be a member of. Then [`Refusal::TooManyChannels`](crate::Refusal::TooManyChannels).
    pub channels: usize,
    /// How long a client may take to prove a channel's password, derivation included. Then
    /// [`Refusal::Deadline`](crate::Refusal::Deadline) is the answer to a proof, and the hub has forgotten that it asked.
    pub join: Duration,
    /// Joins of one client that are not proved, or whose refusal waits. Then [`Refusal::Overloaded`](crate::Refusal::Overloaded).
    pub joins: usize,
    /// Members of one channel. Then [`Refusal::TooManyMembers`](crate::Refusal::TooManyMembers).
    pub members: usize,
    /// Protected channels of one credential, whether anybody is a member or not. Then
    /// [`Refusal::TooManyRecords`](crate::Refusal::TooManyRecords).
    pub records: usize,
    /// Names of channels that one credential makes a hub remember beyond their last member: those that have, or had, a
    /// password, and those that wait for their owner. Counted until the name is forgotten, a day after the last member
    /// left. Then [`Refusal::TooManyNames`](crate::Refusal::TooManyNames) for claiming or protecting one more.
    pub names: usize,
    /// Events one client may provide. Then [`Refusal::TooManyProviders`](crate::Refusal::TooManyProviders).
    pub providers: usize,
    /// Events one client may listen to. Then [`Refusal::TooManyListeners`](crate::Refusal::TooManyListeners).
    pub listeners: usize,
    /// Calls of one client that wait for their answer. Then [`Refusal::Overloaded`](crate::Refusal::Overloaded).
    pub pending_calls: usize,
    /// Messages of a client that wait for a connection that is away, and at most as many bytes as `outbox`. Then
    /// [`Misuse::Busy`](crate::Misuse::Busy).
    pub parked: usize,
    /// Streams of one client that have not ended, counted among its calls as well. Then
    /// [`Refusal::Overloaded`](crate::Refusal::Overloaded), or [`Misuse::TooMany`](crate::Misuse::TooMany) before it is sent.
    /// However many there are, of each 16 KiB may be on their way: three quarters of `outbox` must hold that for all of them.
    pub streams: usize,
    /// One item of a stream, in bytes of its payload. Then [`Misuse::TooLarge`](crate::Misuse::TooLarge) at the sender, and
    /// the stream ends with [`Refusal::TooLarge`](crate::Refusal::TooLarge).
    pub item: usize,
    /// Bytes that a hub holds for its links: frames under way in either direction, and its tables as estimated. At more, it
    /// takes no connections, members, providers or listeners; calls, sends and broadcasts end with
    /// [`Refusal::Overloaded`](crate::Refusal::Overloaded), and so do links in the middle of a long frame.
    pub memory: usize,
    /// Hubs that a message may pass, so that nothing goes in circles for ever. At the last one a call ends with
    /// [`Refusal::Loop`](crate::Refusal::Loop), and anything else is dropped and counted.
    pub hops: u8,
    /// Things that are announced over one bridge, each way: providers, members, listened events, protected channels. What is
    /// more is not known at the other hub, and told by [`Event::BridgeFull`](crate::hub::Event::BridgeFull). What is two hubs
    /// away or more finds an eighth less (with eight `hops`), what is three or more two eighths, and so on.
    pub bridge_routes: usize,
    /// Calls that come over one bridge and wait for their answer, streams among them. Then
    /// [`Refusal::Overloaded`](crate::Refusal::Overloaded).
    pub bridge_calls: usize,
    /// Broadcasts and sends of a minute that one bridge brings first, remembered so that copies on other ways are known. More
    /// are dropped and counted. They are shared by distance as `bridge_routes` are.
    pub bridge_doubles: usize,
    /// Encoded metadata of one message, in bytes. Then [`Misuse::TooLarge`](crate::Misuse::TooLarge) at the sender.
    pub metadata: usize,
}

/// The longest frame that any limit may allow, in bytes.
pub const FRAME_CAP: u32 = 64 << 20;
/// The longest time a request may ask for (one day).
pub const TIME_LEFT_MAX: Duration = Duration::from_secs(86_400);

impl Default for Limits {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(10),
            handshake: Duration::from_secs(5),
            registration: Duration::from_secs(10),
            handshake_frame: 1 << 10,
            frame: 1 << 20,
            heartbeat: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            partial_frame: Duration::from_secs(10),
            in_flight: 256 << 10,
            outbox: 8 << 20,
            write: Duration::from_secs(10),
            unauthenticated: 256,
            unauthenticated_per_source: 32,
            free_failures: 5,
            free_failures_per_source: 64,
            failure_delay: Duration::from_secs(1),
            failure_delay_max: Duration::from_secs(300),
            failure_table: 4_096,
            failures_told: 10,
            failures_told_in: Duration::from_secs(10),
            connections: 65_536,
            channels: 1_024,
            join: Duration::from_secs(60),
            joins: 64,
            members: 10_000,
            records: 256,
            names: 4_096,
            providers: 4_096,
            listeners: 4_096,
            pending_calls: 1_024,
            parked: 1_024,
            streams: 256,
            item: 64 << 20,
            memory: 1 << 30,
            hops: 8,
            bridge_routes: 16_384,
            bridge_calls: 16_384,
            bridge_doubles: 262_144,
            metadata: 4 << 10,
        }
    }
}
