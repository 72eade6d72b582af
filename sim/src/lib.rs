//! CommIPC's deterministic simulator: worlds, links, faults and oracles from one seed.

mod agenda;
pub mod decisions;
mod engine;
mod node;
mod weather;
mod wire;

pub use engine::{Engine, Sight, Step, Witness};
pub use node::{Clocks, Habits, NodeId};
pub use weather::{Chunks, Weather};
