//! The core through its own doors, a module for each behaviour: one binary, which is linked once. What measures this
//! process, its memory and its allocations, has binaries of its own.

#[path = "../support/mod.rs"]
mod support;

mod altered;
mod auth_adversaries;
mod auth_vectors;
mod away;
mod bridge_adversary;
mod bridged_channels;
mod bridges;
mod clearing;
mod contract;
mod conversation;
mod deception;
mod demand;
mod draining;
mod endings;
mod endings_over_bridges;
mod graphs;
mod guessing;
mod handshake;
mod joining;
mod limits;
mod loops;
mod lying_bridge;
mod message_vectors;
mod missing;
mod owner_afar;
mod owner_news;
mod owner_unanswered;
mod ownership;
mod protection;
mod providers;
mod reconnect;
mod refused;
mod restarted;
mod slow_refusals;
mod storage;
mod streams;
mod system;
mod system_news;
mod system_password;
mod takeover;
mod takeover_stored;
mod total_deadlines;
mod tries;
mod truncated;
mod unstored;
