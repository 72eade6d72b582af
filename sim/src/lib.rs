//! CommIPC's deterministic simulator: worlds, links, faults and oracles from one seed.
//!
//! ```text
//!   seed ─┐                ┌─ weather, habits, clocks
//!   list ─┼─► decisions ──►├─ work (swarm) or a suite ─► Engine ─► machines
//!   bytes ┘                └─ order of ties                │
//!                                                          ▼
//!                                trace (hash, conversation), oracles ─► Outcome
//! ```
//!
//! A suite speaks to a [`World`]; `commipc sim` runs seeds with [`run_seeds`]; a fuzzer runs bytes with
//! [`run_choices`]. Machines of one's own run on the [`Engine`]; programs with clients, hubs and handlers in a [`SimNet`],
//! which searches seeds and plans faults, or in a bare [`Sim`].

mod admins;
mod agenda;
mod attacker;
mod bridges;
mod bridging;
mod canon;
mod case;
mod conversation;
pub mod decisions;
mod engine;
mod feeding;
pub mod fuzzing;
mod held;
mod host;
mod leaving;
mod liar;
mod lives;
mod mallory;
mod marks;
mod milestones;
mod node;
pub mod oracles;
mod overheard;
mod passwords;
mod plans;
mod returning;
mod rogue;
mod run;
mod shrink;
mod station;
mod streaming;
mod suite;
mod swarm;
mod trace;
mod twin;
mod weather;
mod wire;
mod world;

pub use attacker::{Assault, Attacker, Tampering};
pub use canon::Canon;
pub use case::Case;
pub use commipc_protocol::canary::{Canary, plant};
pub use conversation::Conversation;
pub use engine::{Engine, Sight, Step, Witness};
pub use feeding::Feed;
pub use host::{Broken, Joining, Process, Report, Sim, SimDisk, SimNet, SimNetBuilder, Stalled, Storm};
pub use lives::DiskHabits;
pub use mallory::{Field, Malice, Mallory, Order, Trick};
pub use node::{Clocks, Habits, NodeId};
pub use rogue::Rogue;
pub use run::{
    Found, Outcome, Profile, Source, Tally, find_canary, is_malicious, replay_command, report_seed, run, run_as,
    run_choices, run_seed, run_seed_as, run_seed_checked, run_seeds, run_seeds_as,
};
pub use shrink::{Shrunk, Size, shrink};
pub use station::{Asked, Station, Told, Withheld};
pub use suite::{At, Reply, Ticket};
pub use trace::{Trace, TraceHash};
pub use twin::Twins;
pub use weather::{Chunks, Weather};
pub use world::{Failure, Moment, World};
